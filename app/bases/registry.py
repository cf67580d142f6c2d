"""The list of named base models: a JSON file in the person's data folder.

It is written under a temporary name and moved into place, by one process at a time, which reads it again before; a
file that cannot be read is never written over.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from loradex.app.bases.entry import Entry
from loradex.app.bases.errors import RegistryError
from loradex.app.paths import user_data_dir
from loradex.index.disk import sync
from loradex.index.errors import ZooError, ZooLocked
from loradex.index.lock import WriterLock

FILE: Final = "bases.json"
VERSION: Final = 1  # of the file's form; increase it when older Loradexes could not read a file
MAX_BYTES: Final = 4 * 2**20
MAX_BASES: Final = 1000
LOCK_TIMEOUT: Final = 10.0  # seconds
LOCK_PAUSE: Final = 0.02  # seconds


def registry_file() -> Path:
    """The file of the list; it need not exist."""
    return user_data_dir() / "bases" / FILE


def read_registry() -> list[Entry]:
    """The named base models, the latest last.

    Raises:
        RegistryError: the file is damaged, or of a later Loradex.
    """
    path = registry_file()
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
        match json.loads(raw.decode()):
            case {"version": int(version), "bases": [*values]} if version <= VERSION and len(values) <= MAX_BASES:
                return [Entry.parse(value) for value in values]
            case {"version": int(version)} if version > VERSION:
                raise ValueError(f"version {version} of a later Loradex")
        raise ValueError("another document")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise RegistryError(
            f"{path}: expected the list of base models, found {str(error)[:100]}; mend it, or move it away and add them again"
        ) from None


def change_registry(change: Callable[[list[Entry]], Sequence[Entry]]) -> list[Entry]:
    """Replace the list by what ``change`` makes of the present one, which no other process changes meanwhile.

    Raises:
        RegistryError: the file is damaged or cannot be written, or the list would be too long.
    """
    path = registry_file()
    with one_writer(path.parent):
        entries = list(change(read_registry()))
        if len(entries) > MAX_BASES:
            raise RegistryError(
                f"{path}: expected at most {MAX_BASES} base models, found {len(entries)}; remove some with `loradex base remove`"
            )
        document = {"version": VERSION, "bases": [entry.document() for entry in entries]}
        temporary = path.with_name(f".{FILE}.part")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            sync(file)
        os.replace(temporary, path)  # noqa: PTH105 - as in Path.replace
    return entries


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold the right to write the list, waiting for another process to end.

    Raises:
        RegistryError: the folder cannot be written, or another process does not end.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock, end = None, time.monotonic() + LOCK_TIMEOUT
        while lock is None:
            try:
                lock = WriterLock(folder)
            except ZooLocked:
                if time.monotonic() > end:
                    raise
                time.sleep(LOCK_PAUSE)
        try:
            yield
        finally:
            lock.release()
    except (OSError, ZooError) as error:
        reason = "another process that writes it" if isinstance(error, ZooLocked) else str(error)
        raise RegistryError(
            f"{folder / FILE}: expected to write the list of base models, found {reason}; check the folder, or set $XDG_DATA_HOME"
        ) from None
