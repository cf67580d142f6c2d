"""Opens the zoo of a folder: in SQLite, or in Milvus if the folder has an address file."""

import logging
from contextlib import suppress
from pathlib import Path
from threading import Lock, Timer
from time import sleep
from typing import Final

from loradex.index.errors import ZooDamaged, ZooLocked, ZooOutdated, ZooReadOnly
from loradex.index.milvus.address import has_address
from loradex.index.milvus.zoo import MilvusZoo
from loradex.index.sqlite.zoo import Zoo

AnyZoo = Zoo | MilvusZoo

UNFINISHED: Final = "copying"  # a file that marks a folder while a zoo is copied into it

TRIES: Final = 10  # to migrate a zoo that another process has open for writing
PAUSE: Final = 0.2  # seconds between them
LONG: Final = 1.0  # seconds after which a migration is reported
MIGRATING: Final = Lock()  # so that a thread waits for another that migrates the same zoo

log = logging.getLogger(__name__)


def zoo_class(folder: Path) -> type[Zoo] | type[MilvusZoo]:
    """Return the class of the zoo in a folder, or of a new zoo there.

    Raises:
        DiskRefused: the folder cannot be accessed.
    """
    return MilvusZoo if has_address(folder) else Zoo


def open_zoo(folder: Path, *, space: str | None = None, read_only: bool = False) -> AnyZoo:
    """Open a zoo for writing, or for reading, as ``BaseZoo.open``.

    A zoo in SQLite that an earlier version of Loradex wrote is migrated for reading too; the log says so if it takes
    long. One in Milvus is not, as others who share it may have the earlier version still.

    Raises:
        ZooDamaged: it is an unfinished copy.
        ZooOutdated: it must be migrated, and cannot be written.
        ZooError: as ``BaseZoo.open``.
    """
    check_finished(folder)
    kind = zoo_class(folder)
    try:
        return kind.open(folder, space=space, read_only=read_only)
    except ZooOutdated as outdated:
        if kind is not Zoo:
            raise
        migrate(folder, outdated)
    return kind.open(folder, space=space, read_only=read_only)


def migrate(folder: Path, outdated: ZooOutdated) -> None:
    """Open a zoo for writing once, which migrates it.

    Raises:
        ZooOutdated: another process has it open for writing, or this one may not write; the message of ``outdated``,
            and what must change first.
        ZooError: it cannot be migrated; it stays as it was.
    """
    report = Timer(LONG, log.info, ["%s: migrating the zoo, which an earlier Loradex wrote; this happens once", folder])
    report.daemon = True
    with MIGRATING:
        report.start()
        try:
            open_for_writing_once(folder, outdated)
        finally:
            report.cancel()


def open_for_writing_once(folder: Path, outdated: ZooOutdated) -> None:
    """Open a zoo for writing, unless another thread or process migrates it first; raises as ``migrate``."""
    for _ in range(TRIES):
        with suppress(ZooOutdated):
            return Zoo.open(folder, read_only=True).close()
        try:
            return Zoo.open(folder).close()
        except ZooLocked:
            sleep(PAUSE)
        except ZooReadOnly:
            raise ZooOutdated(f"{outdated} as a user who may write to it, or after copying its folder") from None
    raise ZooOutdated(f"{outdated} as soon as no other process writes to it")


def open_or_create_zoo(folder: Path, space: str, dim: int) -> AnyZoo:
    """Open a zoo for writing, or create it for vectors (dim,) of a space if there is none.

    Raises:
        ZooDamaged: it is an unfinished copy.
        ZooError: as ``BaseZoo.open_or_create``.
    """
    check_finished(folder)
    return zoo_class(folder).open_or_create(folder, space, dim)


def check_finished(folder: Path) -> None:
    """Raise ``ZooDamaged`` if a folder has an unfinished copy."""
    if (folder / UNFINISHED).is_file():
        raise ZooDamaged(
            f"{folder}: expected a complete zoo, found half a copy; run `loradex zoo copy` to it again to finish it"
        )
