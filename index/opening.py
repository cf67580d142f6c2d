"""Opens the zoo of a folder: in SQLite, or in Milvus if the folder has an address file."""

from pathlib import Path
from typing import Final

from loradex.index.errors import ZooDamaged
from loradex.index.milvus.address import has_address
from loradex.index.milvus.zoo import MilvusZoo
from loradex.index.sqlite.zoo import Zoo

AnyZoo = Zoo | MilvusZoo

UNFINISHED: Final = "copying"  # a file that marks a folder while a zoo is copied into it


def zoo_class(folder: Path) -> type[Zoo] | type[MilvusZoo]:
    """Return the class of the zoo in a folder, or of a new zoo there.

    Raises:
        DiskRefused: the folder cannot be accessed.
    """
    return MilvusZoo if has_address(folder) else Zoo


def open_zoo(folder: Path, *, space: str | None = None, read_only: bool = False) -> AnyZoo:
    """Open a zoo for writing, or for reading, as ``BaseZoo.open``.

    Raises:
        ZooDamaged: it is an unfinished copy.
        ZooError: as ``BaseZoo.open``.
    """
    check_finished(folder)
    return zoo_class(folder).open(folder, space=space, read_only=read_only)


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
