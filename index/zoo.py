"""A zoo: models and their vectors in a folder, searched by cosine."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from operator import index as to_int
from pathlib import Path
from sqlite3 import Connection
from threading import Lock
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index.connections import CATALOGUE, Readers, Writer, WriterLock, write_empty
from index.engine import Engine
from index.errors import (
    RESTORE,
    BadQuery,
    BadVector,
    DiskRefused,
    ModelMissing,
    SpaceMismatch,
    ZooDamaged,
    ZooExists,
    ZooMissing,
    ZooReadOnly,
)
from index.model import FoundBy, Hit, KnownFile, Model
from index.rows import (
    MODEL,
    damaged_row,
    from_row,
    generation,
    note_change,
    put,
    put_file,
    put_fingerprint,
    read_files,
    read_fingerprints,
    read_vector,
    read_vectors,
    to_row,
)
from index.vectors import Vector, Vectors, count, to_unit

PAGE: Final = 500  # models read at a time by ``models``
EMPTY: Final[Mapping[str, bytes]] = {}


class Zoo:
    """A folder with a catalogue (SQLite) of models and unit vectors, bound to one space.

    Any number of processes may read while one writes. One object may be shared by threads: searches run side by side, writes take turns.
    """

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        """Open the zoo of a folder; use ``open``, ``create`` or ``open_or_create``."""
        self.folder, self.read_only = folder, read_only
        self._path = folder / CATALOGUE
        with ExitStack() as undo:
            self._writer = None if read_only else Writer(folder)
            if self._writer:
                undo.callback(self._writer.close)
            self._readers = Readers(self._path)
            undo.callback(self._readers.close)
            self.space, self.dim = self._read_binding()
            self._opened = undo.pop_all()
        self._building = Lock()
        self._engine = Engine(-1, [], np.empty((0, self.dim), np.float32))

    @classmethod
    def create(cls, folder: Path, space: str, dim: int) -> Self:
        """Make an empty zoo for vectors (dim,) of a space, in a folder that may be new, and open it for writing.

        Raises:
            ZooExists: there is one.
            ZooLocked: another process is about to make one.
            BadVector: ``dim`` is not a positive number.
            DiskRefused, ZooReadOnly: the folder cannot be made or written.
        """
        if dim < 1 or not space:
            raise BadVector(f"{folder}: expected a space's name and dim, found {space!r} and {dim}; pass the encoder's")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskRefused(f"{folder}: expected to make a folder, found: {error.strerror}; use another folder") from None
        lock = WriterLock(folder)
        try:
            if has_zoo(folder):
                raise ZooExists(f"{folder}: expected no zoo yet, found one; open it, or use another folder")
            write_empty(folder, space, dim)
        finally:
            lock.release()
        return cls.open(folder, space=space)

    @classmethod
    def open(cls, folder: Path, *, space: str | None = None, read_only: bool = False) -> Self:
        """Open a zoo for writing, as its only writer, or for reading; ``space`` is the one that it must be bound to.

        Raises:
            ZooMissing: there is none.
            SpaceMismatch: it is bound to another space.
            ZooLocked: it is being written, and ``read_only`` is false.
            ZooReadOnly: the folder cannot be written, and ``read_only`` is false.
            ZooDamaged, ZooTooNew: the catalogue cannot be used.
        """
        if not has_zoo(folder):
            raise ZooMissing(f"{folder}: expected a zoo ({CATALOGUE}), found none; check the path, or make one with `loradex index`")
        zoo = cls(folder, read_only=read_only)
        if space not in (None, zoo.space):
            zoo.close()
            raise SpaceMismatch(f"{folder}: expected space {space!r}, found space {zoo.space!r}; use its encoder, or index into a new zoo")
        return zoo

    @classmethod
    def open_or_create(cls, folder: Path, space: str, dim: int) -> Self:
        """Open a zoo for writing, or make it if there is none.

        Raises:
            ZooError: as ``open`` and ``create``.
        """
        if not has_zoo(folder):
            return cls.create(folder, space, dim)
        zoo = cls.open(folder, space=space)
        if zoo.dim != dim:
            zoo.close()
            raise SpaceMismatch(f"{folder}: expected space {space!r} in {dim} dimensions, found it in {zoo.dim}; index into a new zoo")
        return zoo

    def __enter__(self) -> Self:
        """The zoo itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close all files; a second call does nothing."""
        self._opened.close()

    def __len__(self) -> int:
        """The number of models, with those that have no vector."""
        with self._reading() as connection:
            return int(connection.execute("SELECT count(*) FROM models").fetchone()[0])

    def add(self, models: Sequence[Model], vectors: Vectors, fingerprints: Mapping[str, bytes] = EMPTY) -> int:
        """Insert models with vectors (n, dim) of any length, or replace those with the same id, all at once; return how many ids.

        A model found by metadata may have None for a vector; it is in the catalogue and never a hit. Of several models with
        one id the last stays. ``fingerprints``, by id, are kept as they are. When this returns, the models are on the disk.

        Raises:
            BadModel, BadVector: a model or vector cannot be stored; nothing is.
            ModelMissing: a fingerprint is of a model that is not in the zoo; nothing is stored.
            ZooReadOnly, DiskRefused, ZooDamaged: the zoo cannot be written; nothing is.
        """
        if (given := count(vectors, BadVector)) != len(models):
            raise BadVector(f"{self.folder}: expected a vector for each of {len(models)} models, found {given}; pass one for each")
        batch = [(to_row(model), self._unit(model, vector)) for model, vector in zip(models, vectors, strict=True)]
        with self._writing() as connection:
            for row, unit in batch:
                put(connection, row, unit)
            for id, data in fingerprints.items():
                try:
                    put_fingerprint(connection, id, data)
                except sqlite3.IntegrityError:
                    raise ModelMissing(f"fingerprint of model {id!r}: expected the model in the zoo, found none; add both at once") from None
            note_change(connection)
        return len({model.id for model in models})

    def remove(self, ids: Iterable[str]) -> int:
        """Take models out, with all that is known of their files; return how many there were.

        Raises:
            ZooReadOnly, DiskRefused, ZooDamaged: the zoo cannot be written; nothing is changed.
        """
        with self._writing() as connection:
            removed = sum(connection.execute("DELETE FROM models WHERE id = ?", (id,)).rowcount for id in dict.fromkeys(ids))
            if removed:
                note_change(connection)
        return removed

    def get(self, id: str) -> Model:
        """One model.

        Raises:
            ModelMissing: there is none with this id.
        """
        with self._reading() as connection:
            return self._get(connection, id)

    def models(self) -> Iterator[Model]:
        """All models in order of id, read in pages so that no writer waits; each page is of one committed state."""
        last = ""
        while True:
            with self._reading() as connection:
                rows = connection.execute(f"{MODEL} WHERE id > ? ORDER BY id LIMIT {PAGE}", (last,)).fetchall()
            if not rows:
                return
            for row in rows:
                yield from_row(row, self._path)
            last = rows[-1][0]

    def vector(self, id: str) -> Vector:
        """The unit vector (dim,) of a model.

        Raises:
            ModelMissing: there is no such model, or it has no vector.
        """
        found: Vector = self.vectors([id])[0]
        return found

    def vectors(self, ids: Sequence[str]) -> Vector:
        """The unit vectors (n, dim) of models, in the order of ``ids`` (n,).

        Raises:
            ModelMissing: one of them is not there or has no vector.
        """
        found = np.empty((len(ids), self.dim), np.float32)
        with self._reading() as connection:
            for position, id in enumerate(ids):
                row = connection.execute("SELECT id, vector, crc FROM vectors WHERE id = ?", (id,)).fetchone()
                if row is None:
                    raise ModelMissing(f"{self.folder}: expected a vector of model {id!r}, found none; index its file again")
                found[position] = read_vector(row, self.dim, self._path)
        return found

    def fingerprints(self) -> dict[str, bytes]:
        """The fingerprints of all models that have one, by id."""
        with self._reading() as connection:
            return dict(read_fingerprints(connection, self._path))

    def search(self, query: NDArray[np.floating], k: int = 10) -> list[Hit]:
        """The ``k`` models nearest to a query (dim,) of any length, by cosine, ties in order of id.

        Raises:
            BadQuery: the query is no direction in this space, or ``k`` is negative.
        """
        return self.search_many([query], k)[0]

    def search_many(self, queries: NDArray[np.floating] | Sequence[NDArray[np.floating]], k: int = 10) -> list[list[Hit]]:
        """The hits of each query (q, dim), all over one committed state.

        Raises:
            BadQuery: a query is no direction in this space, or ``k`` is negative.
        """
        try:
            wanted = to_int(k)
        except TypeError:
            wanted = -1
        if wanted < 0:
            raise BadQuery(f"number of hits: expected 0 or more, found {k!r}; ask for a whole number")
        if not count(queries, BadQuery):
            return []
        units = np.stack([to_unit(query, self.dim, "query", BadQuery) for query in queries])
        with self._reading() as connection:
            found = self._engine_of(connection).search(units, wanted)
            models = {id: self._model_of_vector(connection, id) for id in {id for hits in found for id, _ in hits}}
        return [[Hit(models[id], score) for id, score in hits] for hits in found]

    def known_files(self) -> dict[str, KnownFile]:
        """The files that were read, by path."""
        with self._reading() as connection:
            return {file.path: file for file in read_files(connection)}

    def note_files(self, files: Iterable[KnownFile]) -> None:
        """Remember what became of files, all at once; add their models first, so that a crash in between loses nothing.

        Raises:
            ModelMissing: a file names a model that is not in the zoo; nothing is noted.
            ZooReadOnly, DiskRefused, ZooDamaged: the zoo cannot be written; nothing is noted.
        """
        with self._writing() as connection:
            for file in files:
                try:
                    put_file(connection, file)
                except sqlite3.IntegrityError:
                    raise ModelMissing(f"file {file.path!r}: expected model {file.model_id!r} in the zoo, found none; add it first") from None

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._readers.transaction()

    def _writing(self) -> AbstractContextManager[Connection]:
        if self._writer is None:
            raise ZooReadOnly(f"{self.folder}: expected a zoo open for writing, found it open for reading only; open it without read_only")
        return self._writer.transaction()

    def _read_binding(self) -> tuple[str, int]:
        with self._reading() as connection:
            rows = connection.execute("SELECT space, dim FROM zoo").fetchall()
        if len(rows) != 1 or not isinstance(rows[0][0], str) or not isinstance(rows[0][1], int) or rows[0][1] < 1:
            raise ZooDamaged(f"{self._path}: expected the name and dim of one space, found {rows!r}; {RESTORE}")
        return rows[0][0], rows[0][1]

    def _unit(self, model: Model, vector: ArrayLike | None) -> Vector | None:
        if vector is not None:
            return to_unit(vector, self.dim, f"vector of model {model.id!r}", BadVector)
        if model.found_by == FoundBy.METADATA:
            return None
        raise BadVector(f"vector of model {model.id!r}: expected one, as it was found by weights, found None; give it, or say metadata")

    def _get(self, connection: Connection, id: str) -> Model:
        row = connection.execute(f"{MODEL} WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise ModelMissing(f"{self.folder}: expected a model {id!r}, found none; list the zoo's models for their ids")
        return from_row(row, self._path)

    def _model_of_vector(self, connection: Connection, id: str) -> Model:
        try:
            return self._get(connection, id)
        except ModelMissing:
            raise damaged_row(self._path, id) from None

    def _engine_of(self, connection: Connection) -> Engine:
        """The engine over the state that a transaction sees; built anew when another was committed, by whatever process."""
        current, engine = generation(connection), self._engine
        if engine.generation == current:
            return engine
        with self._building:  # one thread builds, those behind it find the engine made
            engine = self._engine
            if engine.generation != current:
                engine = self._build(connection, current)
                if current > self._engine.generation:  # else a newer one was stored since this transaction began
                    self._engine = engine
            return engine

    def _build(self, connection: Connection, current: int) -> Engine:
        pairs = list(read_vectors(connection, self.dim, self._path))
        vectors = np.empty((len(pairs), self.dim), np.float32)
        for position, (_, vector) in enumerate(pairs):
            vectors[position] = vector
        return Engine(current, [id for id, _ in pairs], vectors)


def has_zoo(folder: Path) -> bool:
    """Whether a folder holds a catalogue.

    Raises:
        DiskRefused: the system does not let us look.
    """
    try:
        return (folder / CATALOGUE).is_file()
    except OSError as error:
        raise DiskRefused(f"{folder}: expected a folder to look into, found: {error.strerror}; check access rights") from None
