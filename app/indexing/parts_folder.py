"""A folder of Parquet parts, from which a run on Ray that was stopped continues.

``manifest.json`` names the zoo, the space and the experts that the parts belong to. A part is named by the SHA-256 of
its bytes and appears in the folder whole. A truncated or changed part does not fit its name; it is deleted, and its
files are read again. The contents of a part are checked as well: see ``part_format``.
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

from loradex.app.indexing.file_reader import ReadResult
from loradex.app.indexing.part_format import BadPart, decode_part
from loradex.index import KnownFile
from loradex.index.disk import sync, sync_folder
from loradex.retrieval.errors import EngineError, FileError
from loradex.retrieval.lora.regular_file import open_regular_file

FORMAT: Final = "loradex-parts-1"
MANIFEST_NAME: Final = "manifest.json"
PART_NAME: Final = re.compile(r"part-([0-9a-f]{64})\.parquet")
TEMPORARY_SUFFIX: Final = ".part"  # of a file that is being written
MAX_PART_BYTES: Final = 512 * 2**20  # more than 64 files with all their pictures and the longest texts
MAX_MANIFEST_BYTES: Final = 2**16
MAX_CACHED_BYTES: Final = 256 * 2**20  # of parts; the last one is kept in any case

FileState = tuple[str, int, int, str]


@dataclass(frozen=True, slots=True)
class PartsManifest:
    """What the parts of a folder belong to: one zoo, one space of ``dim`` numbers, one set of experts (``reader``)."""

    zoo: str
    space: str
    dim: int
    reader: str


class PartsFolder:
    """The parts of one run. Used by one process at a time: the one that writes to the zoo."""

    def __init__(self, folder: Path, manifest: PartsManifest) -> None:
        """Use ``open`` instead, which prepares the folder and finds its parts."""
        self.folder, self.manifest = folder, manifest
        self._locations: dict[FileState, tuple[str, int]] = {}  # name of the part, row
        self._cache: OrderedDict[str, tuple[list[ReadResult], int]] = OrderedDict()  # results of a part, its bytes

    @classmethod
    def open(cls, folder: Path, manifest: PartsManifest) -> "PartsFolder":
        """Open a folder, which is made if it does not exist; damaged parts and parts of other experts are deleted.

        Raises:
            EngineError: the folder holds other files or parts of another zoo, or the disk refuses access.
        """
        parts = cls(folder, manifest)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stored = parts._read_manifest()
            if stored and stored.zoo != manifest.zoo:
                raise EngineError(
                    f"{folder}: expected parts for zoo {manifest.zoo}, found some for {stored.zoo[:200]}; name another folder with --parts"
                )
            if stored != manifest:
                parts._remove_parts()
                parts._write(MANIFEST_NAME, json.dumps({"format": FORMAT, **asdict(manifest)}).encode())
            parts._load_finished()
        except OSError as error:
            raise disk_error(folder, error) from None
        return parts

    def __contains__(self, file: KnownFile) -> bool:
        return state_of(file) in self._locations

    def get(self, file: KnownFile) -> ReadResult | None:
        """The result for a file in exactly this state, or None if it was not read yet.

        Raises:
            EngineError: its part was damaged since it was written.
        """
        if file not in self:
            return None
        name, row = self._locations[state_of(file)]
        if name not in self._cache:
            try:
                self._add_to_cache(name, *self._read_part(name))
            except (BadPart, FileError) as error:
                raise EngineError(
                    f"{self.folder / name}: expected the part that was written, found it damaged ({error}); run it again to go on"
                ) from None
        self._cache.move_to_end(name)
        return self._cache[name][0][row]

    def add(self, raw: bytes) -> None:
        """Write a part from a worker; it is on disk when this returns.

        Raises:
            EngineError: the bytes are not a part, or the disk refuses them.
        """
        name = part_name(raw)
        try:
            results = decode_part(raw, self.manifest.dim)
            self._write(name, raw)
        except BadPart as error:
            raise EngineError(
                f"a worker: expected a part of {FORMAT}, found none ({error}); have the same Loradex on all machines"
            ) from None
        except OSError as error:
            raise disk_error(self.folder, error) from None
        self._add_part(name, results, len(raw))

    def remove(self) -> None:
        """Delete all parts, and the folder if it holds nothing else.

        Raises:
            EngineError: the disk refuses it.
        """
        try:
            self._remove_parts()
            (self.folder / MANIFEST_NAME).unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
        except OSError as error:
            raise disk_error(self.folder, error) from None

    def _read_manifest(self) -> PartsManifest | None:
        """The manifest in the folder; None if the folder is empty."""
        path = self.folder / MANIFEST_NAME
        if not path.exists():
            if any(not name.endswith(TEMPORARY_SUFFIX) for name in os.listdir(self.folder)):  # noqa: PTH208
                raise EngineError(
                    f"{self.folder}: expected an empty folder or parts of Loradex, found other files; name another folder with --parts"
                )
            return None
        try:
            document = json.loads(self._read_bytes(path, MAX_MANIFEST_BYTES))
            if document.pop("format") != FORMAT or not all(
                type(document[name]) is kind for name, kind in PartsManifest.__annotations__.items()
            ):
                raise ValueError("another format")
            return PartsManifest(**document)
        except (FileError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise EngineError(
                f"{path}: expected a manifest of {FORMAT}, found none ({str(error)[:200]}); remove the folder"
            ) from None

    def _load_finished(self) -> None:
        """Find the intact parts, without results that must be read again, and delete other parts."""
        for name in sorted(os.listdir(self.folder)):  # noqa: PTH208
            if PART_NAME.fullmatch(name):
                try:
                    self._add_part(name, *self._read_part(name), lambda result: result.permanent)
                except (BadPart, FileError):
                    (self.folder / name).unlink()
            elif name.endswith(TEMPORARY_SUFFIX):
                (self.folder / name).unlink()

    def _read_part(self, name: str) -> tuple[list[ReadResult], int]:
        """Read and check a part; returns its results and its size in bytes.

        Raises:
            BadPart: the part is damaged.
            FileError: it cannot be read.
        """
        raw = self._read_bytes(self.folder / name, MAX_PART_BYTES)
        if name != part_name(raw):
            raise BadPart("other bytes than its name says")
        return decode_part(raw, self.manifest.dim), len(raw)

    def _read_bytes(self, path: Path, most: int) -> bytes:
        with open_regular_file(path) as file:
            raw = file.read(most + 1)
        if len(raw) > most:
            raise BadPart(f"more than {most} bytes")
        return raw

    def _add_part(
        self,
        name: str,
        results: list[ReadResult],
        size: int,
        include: Callable[[ReadResult], bool] = lambda result: True,
    ) -> None:
        """Remember where the results of a part are, those that ``include`` selects."""
        self._locations |= {state_of(result.file): (name, row) for row, result in enumerate(results) if include(result)}
        self._add_to_cache(name, results, size)

    def _add_to_cache(self, name: str, results: list[ReadResult], size: int) -> None:
        self._cache[name] = results, size
        while len(self._cache) > 1 and sum(size for _, size in self._cache.values()) > MAX_CACHED_BYTES:
            self._cache.popitem(last=False)

    def _write(self, name: str, raw: bytes) -> None:
        """Write a file to disk, whole or not at all."""
        temporary = self.folder / f"{name}{TEMPORARY_SUFFIX}"
        with temporary.open("wb") as file:
            file.write(raw)
            sync(file)
        temporary.replace(self.folder / name)
        sync_folder(self.folder)

    def _remove_parts(self) -> None:
        for name in os.listdir(self.folder):  # noqa: PTH208
            if PART_NAME.fullmatch(name):
                (self.folder / name).unlink()


def state_of(file: KnownFile) -> FileState:
    """What a result belongs to: path, size, time and reader of a file."""
    return file.path, file.size, file.mtime_ns, file.reader


def part_name(raw: bytes) -> str:
    """The file name of a part."""
    return f"part-{hashlib.sha256(raw).hexdigest()}.parquet"


def disk_error(folder: Path, error: OSError) -> EngineError:
    """The error for a folder that the disk refuses to read or write."""
    return EngineError(
        f"{folder}: cannot be used: {error.strerror or error}; check the disk and the access rights, or name another folder with --parts"
    )
