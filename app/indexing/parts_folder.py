"""Outcomes as Parquet parts in a folder, so that a run that was stopped goes on from what it finished.

``manifest.json`` says which zoo, space and experts the parts are for. A part is named by the SHA-256 of its bytes and comes into the folder whole, so
what is cut short or changed is known by its name, and read again from the files. Nothing in a part is taken on trust: see ``loradex.app.indexing.part_format``.
"""

import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from loradex.app.indexing.file_reader import Outcome
from loradex.app.indexing.part_format import BadPart, outcomes_of
from loradex.index import KnownFile
from loradex.index.sqlite.connections import sync, sync_folder
from loradex.retrieval.errors import EngineError, FileError
from loradex.retrieval.lora.header import open_regular

FORMAT: Final = "loradex-parts-1"
MANIFEST: Final = "manifest.json"
NAME: Final = re.compile(r"part-([0-9a-f]{64})\.parquet")
UNFINISHED: Final = ".part"
LARGEST: Final = 128 * 2**20  # bytes of a part
LARGEST_MANIFEST: Final = 2**16
OPEN: Final = 16  # parts whose outcomes are in memory


@dataclass(frozen=True, slots=True)
class Purpose:
    """What parts are for: only those of one zoo, one space of ``dim`` numbers and one set of experts (``reader``) belong together."""

    zoo: str
    space: str
    dim: int
    reader: str


class Parts:
    """The parts of one run in a folder; one process at a time, which is the one that writes to the zoo."""

    def __init__(self, folder: Path, purpose: Purpose) -> None:
        """Make the folder, or take what is finished in it; see ``open``."""
        self.folder, self.purpose = folder, purpose
        self._places: dict[KnownFile, tuple[str, int]] = {}
        self._open: OrderedDict[str, list[Outcome]] = OrderedDict()

    @classmethod
    def open(cls, folder: Path, purpose: Purpose) -> "Parts":
        """The parts of a folder, which is made if there is none; damaged ones, and those of other experts, are thrown away.

        Raises:
            EngineError: the folder holds something else or the parts of another zoo, or the disk refuses.
        """
        parts = cls(folder, purpose)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            before = parts._manifest()
            if before and before.zoo != purpose.zoo:
                raise EngineError(
                    f"{folder}: expected parts for zoo {purpose.zoo}, found some for {before.zoo[:200]}; name another folder with --parts"
                )
            if before != purpose:
                parts._remove()
                parts._write(MANIFEST, json.dumps({"format": FORMAT, **asdict(purpose)}).encode())
            parts._take_finished()
        except OSError as error:
            raise refused(folder, error) from None
        return parts

    def __contains__(self, file: KnownFile) -> bool:
        return file in self._places

    def get(self, file: KnownFile) -> Outcome | None:
        """What became of a file, if that is finished.

        Raises:
            EngineError: its part was damaged since it was written.
        """
        if file not in self._places:
            return None
        name, row = self._places[file]
        if name not in self._open:
            try:
                self._keep(name, self._read(name))
            except (BadPart, FileError) as error:
                raise EngineError(
                    f"{self.folder / name}: expected the part that was written, found it damaged ({error}); run it again to go on"
                ) from None
        self._open.move_to_end(name)
        return self._open[name][row]

    def add(self, raw: bytes) -> None:
        """Write a part that a worker made; when this returns, it is on the disk.

        Raises:
            EngineError: it is none, or the disk refuses it.
        """
        name = f"part-{hashlib.sha256(raw).hexdigest()}.parquet"
        try:
            outcomes = outcomes_of(raw, self.purpose.dim)
            self._write(name, raw)
        except BadPart as error:
            raise EngineError(
                f"a worker: expected a part of {FORMAT}, found none ({error}); have the same Loradex on all machines"
            ) from None
        except OSError as error:
            raise refused(self.folder, error) from None
        self._take(name, outcomes)

    def remove(self) -> None:
        """Remove all parts, and the folder if nothing else is in it.

        Raises:
            EngineError: the disk refuses it.
        """
        try:
            self._remove()
            (self.folder / MANIFEST).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
        except OSError as error:
            raise refused(self.folder, error) from None

    def _manifest(self) -> Purpose | None:
        """What the parts that lie there are for; None in an empty folder."""
        path = self.folder / MANIFEST
        if not path.exists():
            if any(not name.endswith(UNFINISHED) for name in os.listdir(self.folder)):  # noqa: PTH208
                raise EngineError(
                    f"{self.folder}: expected an empty folder or parts of Loradex, found other files; name another folder with --parts"
                )
            return None
        try:
            said = json.loads(self._bytes(path, LARGEST_MANIFEST))
            if said.pop("format") != FORMAT or not all(
                type(said[name]) is kind for name, kind in Purpose.__annotations__.items()
            ):
                raise ValueError("another format")
            return Purpose(**said)
        except (FileError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise EngineError(
                f"{path}: expected a manifest of {FORMAT}, found none ({str(error)[:200]}); remove the folder"
            ) from None

    def _take_finished(self) -> None:
        """Take the parts that are whole, but for refusals that may have passed, and remove the others."""
        for name in sorted(os.listdir(self.folder)):  # noqa: PTH208
            if NAME.fullmatch(name):
                try:
                    self._take(name, self._read(name), lambda outcome: outcome.noted)
                except (BadPart, FileError):
                    (self.folder / name).unlink()
            elif name.endswith(UNFINISHED):
                (self.folder / name).unlink()

    def _read(self, name: str) -> list[Outcome]:
        """The outcomes of a part whose bytes are those that its name says."""
        raw = self._bytes(self.folder / name, LARGEST)
        if name != f"part-{hashlib.sha256(raw).hexdigest()}.parquet":
            raise BadPart("other bytes than its name says")
        return outcomes_of(raw, self.purpose.dim)

    def _bytes(self, path: Path, most: int) -> bytes:
        with open_regular(path) as file:
            raw = file.read(most + 1)
        if len(raw) > most:
            raise BadPart(f"more than {most} bytes")
        return raw

    def _take(
        self, name: str, outcomes: list[Outcome], taken: Callable[[Outcome], bool] = lambda outcome: True
    ) -> None:
        self._places |= {outcome.file: (name, row) for row, outcome in enumerate(outcomes) if taken(outcome)}
        self._keep(name, outcomes)

    def _keep(self, name: str, outcomes: list[Outcome]) -> None:
        self._open[name] = outcomes
        while len(self._open) > OPEN:
            self._open.popitem(last=False)

    def _write(self, name: str, raw: bytes) -> None:
        """Write a file, whole or not at all."""
        part = self.folder / f"{name}{UNFINISHED}"
        with part.open("wb") as file:
            file.write(raw)
            sync(file)
        part.replace(self.folder / name)
        sync_folder(self.folder)

    def _remove(self) -> None:
        for name in os.listdir(self.folder):  # noqa: PTH208
            if NAME.fullmatch(name):
                (self.folder / name).unlink()


def refused(folder: Path, error: OSError) -> EngineError:
    """What to say when the disk refuses."""
    return EngineError(
        f"{folder}: cannot be used: {error.strerror or error}; check the disk and the access rights, or name another folder with --parts"
    )
