"""What zoos have in common, whatever holds them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from loradex.index.errors import SpaceMismatch, ZooMissing
from loradex.index.filters import Filter
from loradex.index.model import Hit
from loradex.index.vectors import Vector

ALL = Filter()


class BaseZoo(ABC):
    """A zoo of models and unit vectors, bound to one space.

    Attributes:
        folder: of this machine, with drawings and the writer's lock.
        space: its name.
        dim: the length of its vectors.
    """

    folder: Path
    read_only: bool
    space: str
    dim: int

    def __enter__(self) -> Self:
        """The zoo itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    @classmethod
    @abstractmethod
    def create(cls, folder: Path, space: str, dim: int) -> Self:
        """Make an empty zoo for vectors (dim,) of a space, and open it for writing.

        Raises:
            ZooExists: there is one.
            ZooError: it cannot be made.
        """

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, *, space: str | None = None, read_only: bool = False) -> Self:
        """Open a zoo for writing, as its only writer, or for reading; ``space`` is the one that it must be bound to.

        Raises:
            ZooMissing: there is none.
            ZooError: it cannot be used, or is bound to another space.
        """

    @classmethod
    def open_or_create(cls, folder: Path, space: str, dim: int) -> Self:
        """Open a zoo for writing, or make it if there is none.

        Raises:
            ZooError: as ``open`` and ``create``.
        """
        try:
            zoo = cls.open(folder, space=space)
        except ZooMissing:
            return cls.create(folder, space, dim)
        if zoo.dim != dim:
            zoo.close()
            raise SpaceMismatch(
                f"{folder}: expected space {space!r} in {dim} dimensions, found it in {zoo.dim}; index into a new zoo"
            )
        return zoo

    @abstractmethod
    def close(self) -> None:
        """Let go of all; a second call does nothing."""

    @abstractmethod
    def vectors(self, ids: Sequence[str]) -> Vector:
        """The unit vectors (n, dim) of models, in the order of ``ids`` (n,).

        Raises:
            ModelMissing: one of them is not there or has no vector.
        """

    @abstractmethod
    def search_many(
        self, queries: NDArray[np.floating] | Sequence[NDArray[np.floating]], k: int = 10, where: Filter = ALL
    ) -> list[list[Hit]]:
        """The hits of each query (q, dim).

        Raises:
            BadQuery: a query is no direction in this space, ``k`` is negative, or the filter cannot be used.
        """

    def vector(self, id: str) -> Vector:
        """The unit vector (dim,) of a model.

        Raises:
            ModelMissing: there is no such model, or it has no vector.
        """
        found: Vector = self.vectors([id])[0]
        return found

    def search(self, query: NDArray[np.floating], k: int = 10, where: Filter = ALL) -> list[Hit]:
        """The ``k`` models nearest to a query (dim,) of any length, by cosine, ties in order of id, of those that a filter lets through.

        Raises:
            BadQuery: the query is no direction in this space, ``k`` is negative, or the filter cannot be used.
        """
        return self.search_many([query], k, where)[0]
