"""Durable writes, and errors of the disk and of SQLite as errors of a zoo."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from loradex.index.errors import RESTORE, BadQuery, DiskRefused, ZooDamaged, ZooError, ZooLocked, ZooReadOnly


def zoo_error_of(error: sqlite3.Error, path: Path) -> ZooError:
    """Return the ``ZooError`` for an error of SQLite at a file."""
    primary_code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # the upper bytes are details
    match primary_code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return ZooLocked(
                f"{path}: expected no other writer, found one; wait for it to end, or open with read_only=True"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return ZooReadOnly(f"{path}: expected to write, found: {error}; open with read_only=True, or copy it")
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN:
            return DiskRefused(f"{path}: expected a working disk, found: {error}; check free space and access rights")
        case _:
            return ZooDamaged(f"{path}: expected a sound catalogue, found: {error}; {RESTORE}")


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Raise errors of SQLite and of the system, and values that SQLite does not accept, as ``ZooError``."""
    try:
        yield
    except sqlite3.Error as error:
        raise zoo_error_of(error, path) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DiskRefused(
            f"{path}: expected a working disk, found: {reason}; check free space and access rights"
        ) from None
    except (UnicodeEncodeError, OverflowError) as error:
        raise BadQuery(
            f"{path}: expected text and numbers that SQLite accepts, found: {error}; correct the value"
        ) from None


def sync(file: IO[Any]) -> None:
    """Flush a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
