"""A zoo by its place, whatever holds it: SQLite and FAISS in a folder, or Milvus, of which a folder of this machine tells."""

from pathlib import Path
from typing import Final

from loradex.index.errors import ZooDamaged
from loradex.index.milvus import MilvusZoo
from loradex.index.milvus.address import is_marked
from loradex.index.sqlite.zoo import Zoo

AnyZoo = Zoo | MilvusZoo
UNFINISHED: Final = "copying"  # a file that lies in a folder while a zoo is copied into it


def kind_of(folder: Path) -> type[Zoo] | type[MilvusZoo]:
    """What holds the zoo of a folder, or would hold a new one.

    Raises:
        DiskRefused: the system does not let us look.
    """
    return MilvusZoo if is_marked(folder) else Zoo


def open_zoo(folder: Path, *, space: str | None = None, read_only: bool = False) -> AnyZoo:
    """Open a zoo for writing, or for reading.

    Raises:
        ZooDamaged: it is half a copy.
        ZooError: as ``Zoo.open`` and ``MilvusZoo.open``.
    """
    refuse_unfinished(folder)
    return kind_of(folder).open(folder, space=space, read_only=read_only)


def open_or_create_zoo(folder: Path, space: str, dim: int) -> AnyZoo:
    """Open a zoo for writing, or make it for vectors (dim,) of a space if there is none.

    Raises:
        ZooDamaged: it is half a copy.
        ZooError: as ``Zoo.open_or_create`` and ``MilvusZoo.open_or_create``.
    """
    refuse_unfinished(folder)
    return kind_of(folder).open_or_create(folder, space, dim)


def refuse_unfinished(folder: Path) -> None:
    """Refuse half a copy.

    Raises:
        ZooDamaged: it is one.
    """
    if (folder / UNFINISHED).is_file():
        raise ZooDamaged(
            f"{folder}: expected a whole zoo, found half a copy; run `loradex zoo copy` to it again, which goes on"
        )
