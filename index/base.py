"""The contract of every zoo, whichever store holds it, and the checks that all stores share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from loradex.index.checks import GivenPositions, checked_number_of_hits, checked_positions, checked_scales
from loradex.index.entry import Entry
from loradex.index.errors import BadQuery, BadVector, ModelMissing, SpaceMismatch, ZooMissing
from loradex.index.evidence import Evidence, Position, Positions
from loradex.index.filters import Filter
from loradex.index.model import Hit, KnownFile, Model, State
from loradex.index.scoring import hits_of
from loradex.index.vectors import Vector, batch_length, scored_queries, to_unit

ALL: Final = Filter()
NO_FINGERPRINTS: Final[Mapping[str, bytes]] = {}
PREVIEWS: Final = "previews"  # subfolder of a zoo's folder for preview images, which the users of a zoo write

Progress = Callable[[int, int], None]  # models done, models in all


def no_progress(done: int, total: int) -> None:
    """Report nothing."""


class BaseZoo(ABC):
    """A zoo: models with facts and positions by several kinds of evidence, all in one space.

    Threads may share the object: searches run side by side, writes take turns. As a context manager it closes itself.

    Attributes:
        folder: a folder of this machine with the zoo's previews and the lock of its writer.
        read_only: whether it was opened for reading only.
        space: name of the space.
        dim: length of its vectors.
    """

    folder: Path
    read_only: bool
    space: str
    dim: int

    @classmethod
    @abstractmethod
    def create(cls, folder: Path, space: str, dim: int) -> Self:
        """Create an empty zoo for vectors (dim,) of a space and open it for writing. The folder is created if needed.

        Raises:
            ZooExists: there is a zoo already.
            ZooLocked: another process is creating one.
            BadVector: the name is empty, or ``dim`` is not positive.
            ZooError: the folder or the database cannot be written.
        """

    @classmethod
    @abstractmethod
    def open(cls, folder: Path, *, space: str | None = None, read_only: bool = False) -> Self:
        """Open a zoo for reading, or for writing as its only writer.

        ``space`` is the space that the zoo must be bound to; None allows any.

        Raises:
            ZooMissing: there is no zoo.
            SpaceMismatch: it is bound to another space.
            ZooLocked: it is open for writing elsewhere, and ``read_only`` is false.
            ZooReadOnly: the folder cannot be written, and ``read_only`` is false.
            ZooOutdated: an earlier version of Loradex wrote it, and ``read_only`` is true.
            ZooDamaged, ZooTooNew, ZooUnreachable: the catalogue or the database cannot be used.
        """

    @classmethod
    def open_or_create(cls, folder: Path, space: str, dim: int) -> Self:
        """Open a zoo for writing, or create it if there is none.

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

    @classmethod
    @abstractmethod
    def exists(cls, folder: Path) -> bool:
        """Whether there is a zoo.

        Raises:
            ZooError: the folder or the database cannot be accessed.
        """

    @abstractmethod
    def close(self) -> None:
        """Release all files and connections; a second call does nothing."""

    def __enter__(self) -> Self:
        """Return the zoo itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the zoo."""
        self.close()

    @abstractmethod
    def __len__(self) -> int:
        """The number of models, with those that have no vector."""

    # Writing

    @abstractmethod
    def add(
        self,
        models: Sequence[Model],
        positions: Sequence[GivenPositions] | NDArray[np.floating],
        fingerprints: Mapping[str, bytes] = NO_FINGERPRINTS,
    ) -> int:
        """Insert models, or replace those with the same id, their positions included; return the number of ids.

        Each model has a position for each kind of evidence by which it is known, or one vector (dim,), which stands for
        a position by ``Evidence.PICTURE``; vectors may have any length but zero. A model with None or no position is
        listed but never a hit of ``search``. ``fingerprints``, by id, belong to these models or to models in the zoo.
        Of several models with one id the last counts.

        The whole batch is checked before any of it is stored. On return it is on the disk, and every later search finds
        it.

        Raises:
            BadModel, BadVector: a model or position cannot be stored; nothing is stored.
            ModelMissing: there is no model for a fingerprint; nothing is stored.
            ZooError: the zoo cannot be written.
        """

    @abstractmethod
    def remove(self, ids: Iterable[str]) -> int:
        """Remove models and their known files; return how many of the ids were in the zoo.

        Raises:
            ZooError: the zoo cannot be written.
        """

    @abstractmethod
    def note_files(self, files: Iterable[KnownFile], forget: Iterable[str] = ()) -> None:
        """Record the results of indexing files, and forget the files of some paths.

        Add the models first: after a crash in between, their files are unknown and will be indexed again.

        Raises:
            ModelMissing: a file names a model that is not in the zoo; nothing is stored.
            ZooError: the zoo cannot be written.
        """

    # Reading

    def get(self, id: str) -> Model:
        """Return a model.

        Raises:
            ModelMissing: there is no model with this id.
        """
        if (model := self.models_by_id([id]).get(id)) is None:
            raise ModelMissing(
                f"{self.folder}: expected a model {id!r}, found none; list the zoo's models for their ids"
            )
        return model

    @abstractmethod
    def has(self, id: str) -> bool:
        """Whether there is a model with this id."""

    @abstractmethod
    def models_by_id(self, ids: Sequence[str]) -> dict[str, Model]:
        """Return the models of those ids that exist, by id."""

    @abstractmethod
    def models(self, where: Filter = ALL, after: str = "") -> Iterator[Model]:
        """Yield the models that pass a filter and whose id is greater than ``after``, in order of id.

        They are read in pages, so that no writer has to wait.

        Raises:
            BadQuery: the filter is invalid.
        """

    @abstractmethod
    def counts(self, column: str) -> dict[str, int]:
        """Return how many models have each value of a column, the most frequent value first.

        The column is ``family``, ``format``, ``found_by`` or ``tag``. A model counts for each kind of evidence that
        gives it a position, or for ``metadata`` if none does; and for each of its tags, those of its files included.
        """

    @abstractmethod
    def state(self) -> State:
        """Return the last committed state. Results computed from the zoo are valid while it stays the same."""

    @abstractmethod
    def positions_by_id(self, ids: Sequence[str]) -> dict[str, Positions]:
        """Return the positions of those models that have one, by id, the weightiest evidence first."""

    def vectors_by_id(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Return the unit vector (dim,) by the weightiest evidence of those models that have one, by id."""
        return {id: next(iter(positions.values())).vector for id, positions in self.positions_by_id(ids).items()}

    def vector(self, id: str) -> Vector:
        """Return the unit vector (dim,) of a model by its weightiest evidence.

        Raises:
            ModelMissing: there is no such model, or it has no position.
        """
        vectors = self.vectors_by_id([id])
        if id not in vectors:
            raise ModelMissing(f"{self.folder}: expected a vector of model {id!r}, found none; index its file again")
        return vectors[id]

    @abstractmethod
    def fingerprints(self, ids: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return the fingerprints of all models that have one, in order of id, or of some models."""

    @abstractmethod
    def known_files(self) -> dict[str, KnownFile]:
        """Return all files that were indexed, by path."""

    @abstractmethod
    def files_by_model(self, ids: Sequence[str]) -> dict[str, list[KnownFile]]:
        """Return the files of some models, by model id; models without files are left out."""

    # Search

    def search(self, query: NDArray[np.floating], k: int = 10, where: Filter = ALL, *, scale: float = 1.0) -> list[Hit]:
        """Return the ``k`` models with the best scores for a query (dim,), of those that pass a filter.

        A model's score is the best of its positions (``evidence.Position``) of the kinds that the filter names, its
        cosine multiplied by ``scale``. The query may have any length but zero. Ties are in order of id.

        Raises:
            BadQuery: the query is not a direction in this space, ``k`` is negative, the scale is not positive, or the
                filter is invalid.
        """
        return self.search_many([query], k, where, scales=[scale])[0]

    def search_many(
        self,
        queries: NDArray[np.floating] | Sequence[NDArray[np.floating]],
        k: int = 10,
        where: Filter = ALL,
        *,
        scales: Sequence[float] | None = None,
    ) -> list[list[Hit]]:
        """Return the hits of each query (q, dim), all from one state of the zoo if it has transactions.

        ``scales`` are those of the queries (q,); None for 1.

        Raises:
            BadQuery: as ``search``.
        """
        k = checked_number_of_hits(k)
        if not batch_length(queries, BadQuery):
            return []
        return self._search(self._checked_queries(queries, scales), k, where)

    def score(
        self, models: Sequence[Model], query: NDArray[np.floating], where: Filter = ALL, *, scale: float = 1.0
    ) -> list[Hit]:
        """Return those of some models that have a position that counts as hits, in their order.

        Their scores are bit by bit those of ``search``. Of the filter only its kinds of evidence count.

        Raises:
            BadQuery: as ``search``.
        """
        (scored,) = scored_queries(self._checked_queries([query], [scale]))
        positions = self.positions_by_id([model.id for model in models])
        counted = (
            (model, {kind: each for kind, each in positions.get(model.id, {}).items() if kind in where.kinds})
            for model in models
        )
        return hits_of([(model, own) for model, own in counted if own], scored)

    @abstractmethod
    def _search(self, queries: Vector, k: int, where: Filter) -> list[list[Hit]]:
        """Return the hits of each query (q, dim), a unit vector times its scale; there is at least one."""

    @abstractmethod
    def find(self, words: Sequence[str], k: int = 10, where: Filter = ALL, without: Sequence[str] = ()) -> list[Model]:
        """Return the ``k`` best models by full-text search (BM25) in name, tags, trigger words, title, notes, folder.

        Those of each of its files count (``KnownFile.name``, ``KnownFile.facts``). A model matches if it has every word
        of one of the texts in ``words``, but not every word of one of those in ``without``.

        Raises:
            BadQuery: ``k`` is negative, or the filter is invalid.
        """

    # Maintenance

    @abstractmethod
    def save_engine(self, kind: str | None = None) -> bool:
        """Change the kind of index engine, or save the engine if opening gets faster; return whether it was saved.

        The zoo keeps a new ``kind``: ``auto``, ``exact``, ``codes`` or ``gpu``; a zoo in Milvus has the first two.

        Raises:
            BadQuery: this store has no such engine.
            ZooError: the zoo cannot be written.
        """

    @abstractmethod
    def compact(self) -> None:
        """Give free space back to the disk.

        Raises:
            ZooError: the zoo cannot be written; nothing is lost.
        """

    @abstractmethod
    def verify(self, progress: Progress = no_progress) -> list[str]:
        """Return everything that is not as it was written, a line each; an empty list for a sound zoo.

        Raises:
            ZooDamaged: the damage is so severe that reading cannot go on.
        """

    @abstractmethod
    def rebuild(self, engine: str | None = None) -> list[str]:
        """Recompute what is derived from the models, remove damaged models, and return their ids.

        Their files are forgotten, so that the next ``loradex index`` reads them again. ``engine`` is a kind as in
        ``save_engine``.

        Raises:
            BadQuery: this store has no such engine.
            ZooError: the zoo cannot be read or written.
        """

    # Checks that all stores share

    def _checked_queries(
        self, queries: NDArray[np.floating] | Sequence[NDArray[np.floating]], scales: Sequence[float] | None
    ) -> Vector:
        """Return queries (q, dim), at least one, as unit vectors times their scales.

        Raises:
            BadQuery: one is not a direction in this space, or a scale is not positive.
        """
        units = np.stack([to_unit(query, self.dim, "query", BadQuery) for query in queries])
        if scales is not None:
            units *= checked_scales(scales, len(units))[:, None]
        return units

    def _check_space(self, space: str | None) -> None:
        """Raise ``SpaceMismatch`` if the zoo is bound to another space than the one expected."""
        if space not in (None, self.space):
            raise SpaceMismatch(
                f"{self.folder}: expected space {space!r}, found space {self.space!r}; run `loradex space reindex`, or go back with `loradex space use`"
            )

    def _checked_batch(
        self, models: Sequence[Model], positions: Sequence[GivenPositions] | NDArray[np.floating]
    ) -> list[tuple[Entry, dict[Evidence, Position]]]:
        """Validate models and their positions, and normalize the vectors.

        Raises:
            BadModel, BadVector: one of them cannot be stored.
        """
        if (length := batch_length(positions, BadVector)) != len(models):
            raise BadVector(
                f"{self.folder}: expected positions for each of {len(models)} models, found {length}; pass one for each"
            )
        return [
            (Entry.from_model(model), checked_positions(model, given, self.dim))
            for model, given in zip(models, positions, strict=True)
        ]
