"""A zoo: models and their vectors in a folder, searched by cosine. The catalogue is the truth; engines are made from it."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from operator import index as to_int
from pathlib import Path
from sqlite3 import Connection
from threading import Lock
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loradex.index.base import ALL, BaseZoo
from loradex.index.errors import (
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
from loradex.index.filters import Filter
from loradex.index.model import FoundBy, Hit, KnownFile, Model
from loradex.index.sqlite.connections import (
    CATALOGUE,
    Readers,
    Writer,
    WriterLock,
    sync,
    sync_folder,
    typed_errors,
    write_empty,
)
from loradex.index.sqlite.engine import AUTO, ENGINES, Mask
from loradex.index.sqlite.rows import (
    MODEL,
    damaged_row,
    from_row,
    key_of,
    put,
    put_file,
    put_fingerprint,
    read_files,
    read_fingerprints,
    read_matrix,
    read_vectors,
    remove,
    select_in,
    to_entry,
    to_text,
)
from loradex.index.sqlite.saved_engines import STALE, WORTH_IT, drop_engines, engines_on_disk, load_engine, save_engine
from loradex.index.sqlite.snapshot import Fetch, Found, Snapshot, State, brought_up_to_date
from loradex.index.sqlite.verify import Progress, mend, problems_of
from loradex.index.vectors import Vector, Vectors, count, to_unit
from loradex.index.words import words_query

PAGE: Final = 500  # models read at a time by ``models``
MOST: Final = 2**62  # hits, as many as SQLite counts
PREVIEWS: Final = "previews"  # where drawings lie, by convention of those who fill a zoo
FILTERS: Final = 32  # remembered while no model changes
EMPTY: Final[Mapping[str, bytes]] = {}


class Zoo(BaseZoo):
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
        self._snapshot = Snapshot(State(-1, b""), self.dim)

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
            raise DiskRefused(
                f"{folder}: expected to make a folder, found: {error.strerror}; use another folder"
            ) from None
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
            raise ZooMissing(
                f"{folder}: expected a zoo ({CATALOGUE}), found none; check the path, or make one with `loradex index`"
            )
        zoo = cls(folder, read_only=read_only)
        if space not in (None, zoo.space):
            zoo.close()
            raise SpaceMismatch(
                f"{folder}: expected space {space!r}, found space {zoo.space!r}; use its encoder, or index into a new zoo"
            )
        return zoo

    @classmethod
    def there(cls, folder: Path) -> bool:
        """Whether a folder holds a zoo.

        Raises:
            DiskRefused: the system does not let us look.
        """
        return has_zoo(folder)

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
            raise BadVector(
                f"{self.folder}: expected a vector for each of {len(models)} models, found {given}; pass one for each"
            )
        batch = [
            (to_entry(model), unit_of(model, vector, self.dim)) for model, vector in zip(models, vectors, strict=True)
        ]
        with self._changing() as (connection, generation):
            for entry, unit in batch:
                put(connection, entry, unit, generation)
            for id, data in fingerprints.items():
                key = key_of(connection, id)
                if key is None:
                    raise ModelMissing(
                        f"fingerprint of model {id!r}: expected the model in the zoo, found none; add both at once"
                    )
                put_fingerprint(connection, key, data)
        return len({model.id for model in models})

    def remove(self, ids: Iterable[str]) -> int:
        """Take models out, with all that is known of their files; return how many there were.

        Raises:
            ZooReadOnly, DiskRefused, ZooDamaged: the zoo cannot be written; nothing is changed.
        """
        with self._changing() as (connection, generation):
            return sum(remove(connection, id, generation) for id in dict.fromkeys(ids))

    def get(self, id: str) -> Model:
        """One model.

        Raises:
            ModelMissing: there is none with this id.
        """
        with self._reading() as connection:
            return self._get(connection, id)

    def models_of(self, ids: Sequence[str]) -> dict[str, Model]:
        """Those of some models that are there, by id."""
        with self._reading() as connection:
            return {
                str(row[0]): from_row(row, self._path) for row in select_in(connection, f"{MODEL} WHERE id IN", ids)
            }

    def has(self, id: str) -> bool:
        """Whether there is a model of this id."""
        with self._reading() as connection:
            return key_of(connection, id) is not None

    def state(self) -> State:
        """The last committed state, by which what was made from the zoo is known to be of it still."""
        with self._reading() as connection:
            return State.read(connection)

    def models(self, where: Filter = ALL, after: str = "") -> Iterator[Model]:
        """All models that a filter lets through, in order of id, read in pages so that no writer waits; each page is of one committed state.

        ``after`` is an id, of a model that is there or not, after which they begin.

        Raises:
            BadQuery: the filter cannot be used.
        """
        (condition, values), last = where.sql(), to_text(after)
        while True:
            with self._reading() as connection:
                rows = connection.execute(
                    f"{MODEL} WHERE {condition} AND id > ? ORDER BY id LIMIT {PAGE}", (*values, last)
                ).fetchall()
            if not rows:
                return
            for row in rows:
                yield from_row(row, self._path)
            last = rows[-1][0]

    def counts(self, column: str) -> dict[str, int]:
        """How many models there are of each ``family``, ``format``, ``found_by`` or ``tag``, the most frequent first."""
        table = {"family": "models", "format": "models", "found_by": "models", "tag": "tags"}[column]
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT {column}, count(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
            ).fetchall()
        return {str(value): number for value, number in rows}

    def vectors(self, ids: Sequence[str]) -> Vector:
        """The unit vectors (n, dim) of models, in the order of ``ids`` (n,).

        Raises:
            ModelMissing: one of them is not there or has no vector.
        """
        with self._reading() as connection:
            keys: dict[str, int] = dict(select_in(connection, "SELECT id, key FROM models WHERE id IN", ids))
            found = read_vectors(connection, self.dim, self._path, list(keys.values()))
        missing = [id for id in ids if keys.get(id, -1) not in found]
        if missing:
            raise ModelMissing(
                f"{self.folder}: expected a vector of model {missing[0]!r}, found none; index its file again"
            )
        return np.stack([found[keys[id]] for id in ids]) if ids else np.empty((0, self.dim), np.float32)

    def vectors_of(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The unit vectors (dim,) of those models that have one, by id."""
        if not ids:
            return {}
        with self._reading() as connection:
            keys: dict[int, str] = dict(select_in(connection, "SELECT key, id FROM models WHERE id IN", ids))
            return {
                keys[key]: vector for key, vector in read_vectors(connection, self.dim, self._path, list(keys)).items()
            }

    def fingerprints(self, ids: Sequence[str] | None = None) -> dict[str, bytes]:
        """The fingerprints of all models that have one, or of some, by id."""
        if ids is not None and not ids:
            return {}
        with self._reading() as connection:
            return dict(read_fingerprints(connection, self._path, ids))

    def search_many(
        self, queries: NDArray[np.floating] | Sequence[NDArray[np.floating]], k: int = 10, where: Filter = ALL
    ) -> list[list[Hit]]:
        """The hits of each query (q, dim), all over one committed state.

        Raises:
            BadQuery: a query is no direction in this space, ``k`` is negative, or the filter cannot be used.
        """
        wanted = whole_number(k)
        if not count(queries, BadQuery):
            return []
        units = np.stack([to_unit(query, self.dim, "query", BadQuery) for query in queries])
        with self._reading() as connection:
            snapshot = self._snapshot_of(connection)
            masks = self._masks(connection, snapshot, where) if where else None
            found = snapshot.search(units, wanted, masks, self._fetch(connection))
            return [self._hits(connection, each, wanted) for each in found]

    def find(self, words: Sequence[str], k: int = 10, where: Filter = ALL, without: Sequence[str] = ()) -> list[Model]:
        """The ``k`` models whose name, tags, trigger words or notes have every word of one of some texts, best first.

        The order is that of BM25. None of them has every word of one of ``without``.

        Raises:
            BadQuery: ``k`` is negative, or the filter cannot be used.
        """
        condition, values = where.sql()
        query, wanted = words_query(words, without), whole_number(k)
        if query is None:
            return []
        statement = f"{MODEL} JOIN words ON words.rowid = models.key WHERE words MATCH ? AND {condition} ORDER BY bm25(words, 10, 5, 1), models.id LIMIT ?"
        with self._reading() as connection:
            return [
                from_row(row, self._path) for row in connection.execute(statement, (query, *values, min(wanted, MOST)))
            ]

    def known_files(self) -> dict[str, KnownFile]:
        """The files that were read, by path."""
        with self._reading() as connection:
            return {file.path: file for file in read_files(connection)}

    def files_of(self, ids: Sequence[str]) -> dict[str, list[KnownFile]]:
        """The files of some models, by id."""
        found: dict[str, list[KnownFile]] = {}
        with self._reading() as connection:
            for file in read_files(connection, ids):
                found.setdefault(str(file.model_id), []).append(file)
        return found

    def note_files(self, files: Iterable[KnownFile], forget: Iterable[str] = ()) -> None:
        """Remember what became of files, and forget those of some paths, all at once; add their models first, so that a crash in between loses nothing.

        Raises:
            ModelMissing: a file names a model that is not in the zoo; nothing is noted.
            ZooReadOnly, DiskRefused, ZooDamaged: the zoo cannot be written; nothing is noted.
        """
        with self._changing() as (connection, _):  # searches by folder depend on files
            for path in forget:
                connection.execute("DELETE FROM files WHERE path = ?", (to_text(path),))
            for file in files:
                key = key_of(connection, file.model_id) if file.model_id is not None else None
                if file.model_id is not None and key is None:
                    raise ModelMissing(
                        f"file {file.path!r}: expected model {file.model_id!r} in the zoo, found none; add it first"
                    )
                put_file(connection, file, key)

    def save_engine(self, wanted: str | None = None) -> bool:
        """Write the engine to the disk if that makes opening faster, so that the next one to open the zoo need not read all vectors; return whether it was.

        ``wanted`` is kept as the zoo's kind of engine: ``auto``, ``exact``, ``codes`` or ``gpu``; the file is then written in any case.

        Raises:
            BadQuery: there is no such engine.
            ZooReadOnly, DiskRefused, ZooDamaged: the zoo cannot be read or written.
        """
        if wanted is not None:
            if wanted not in (AUTO, *ENGINES):
                raise BadQuery(f"engine: expected {AUTO}, {', '.join(ENGINES)}, found {wanted!r}; choose one of them")
            with self._changing() as (connection, _):
                connection.execute("UPDATE zoo SET engine = ?", (wanted,))
            self._snapshot = Snapshot(State(-1, b""), self.dim)
            with self._writing():
                drop_engines(self.folder)
        elif self._writer is None:
            raise self._refusal()
        with self._reading() as connection:
            (live,) = connection.execute("SELECT vectors FROM zoo").fetchone()
            if not live or (wanted is None and (live < WORTH_IT or not self._is_stale(connection, live))):
                return False
            snapshot = self._snapshot_of(connection).in_one()
            with self._building:
                self._snapshot = snapshot
            save_engine(self.folder, snapshot)
        return True

    def _is_stale(self, connection: Connection, live: int) -> bool:
        """Whether no engine on the disk is of nearly all the vectors that a transaction sees."""
        stored = next(
            (cached.state.generation for cached in engines_on_disk(self.folder) if cached.state.known_to(connection)),
            -1,
        )
        enough = max(1, int(STALE * live))
        since = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM vectors WHERE generation > ? LIMIT ?)", (stored, enough)
        ).fetchone()[0]
        return bool(since >= enough)

    def copy_to(self, folder: Path) -> None:
        """Write a copy, of one committed state, as a zoo in a new folder, while others read and write this one.

        Raises:
            ZooExists: there is a zoo.
            DiskRefused: the folder cannot be written.
        """
        if has_zoo(folder):
            raise ZooExists(f"{folder}: expected no zoo yet, found one; name a new folder")
        with typed_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f".{CATALOGUE}.part"
            part.unlink(missing_ok=True)
            with self._readers.plain() as connection:
                connection.execute("VACUUM INTO ?", (str(part),))
            with part.open("rb+") as file:
                sync(file)
            if (self.folder / PREVIEWS).is_dir():
                shutil.copytree(self.folder / PREVIEWS, folder / PREVIEWS, dirs_exist_ok=True)
            part.replace(folder / CATALOGUE)
            sync_folder(folder)

    def compact(self) -> None:
        """Forget what was changed in the past, put words in order, and give free space back to the disk.

        Raises:
            ZooReadOnly, DiskRefused, ZooDamaged: the zoo cannot be written; nothing is lost.
        """
        with self._changing() as (connection, generation):
            connection.execute("DELETE FROM commits WHERE generation < ?", (generation,))
            connection.execute("DELETE FROM removed")
            connection.execute("INSERT INTO words (words) VALUES ('optimize')")
        assert self._writer is not None
        with self._writer.alone() as connection:
            connection.execute("VACUUM")

    def verify(self, progress: Progress = lambda done, total: None) -> list[str]:
        """All that is not as it was written, a line each; none for a sound zoo.

        Raises:
            ZooDamaged: so much is damaged that SQLite cannot read on.
        """
        with self._reading() as connection:
            return list(problems_of(connection, self.folder, self._path, self.dim, progress))

    def rebuild(self, engine: str | None = None) -> list[str]:
        """Make words, tags and the engine anew from the catalogue's rows; return the ids of models that were damaged and are taken out.

        The next ``loradex index`` reads their files again. ``engine`` is as in ``save_engine``.

        Raises:
            BadQuery: there is no such engine.
            ZooReadOnly, DiskRefused, ZooDamaged: the zoo cannot be read or written; nothing is changed.
        """
        with self._changing() as (connection, generation):
            lost = mend(connection, self._path, self.dim, generation)
        with self._writing():
            drop_engines(self.folder)
        self._snapshot = Snapshot(State(-1, b""), self.dim)
        self.save_engine(engine)
        return lost

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._readers.transaction()

    def _writing(self) -> AbstractContextManager[Connection]:
        if self._writer is None:
            raise self._refusal()
        return self._writer.transaction()

    @contextmanager
    def _changing(self) -> Iterator[tuple[Connection, int]]:
        """A transaction that makes a new state, with its number."""
        with self._writing() as connection:
            generation = State.read(connection).generation + 1
            yield connection, generation
            connection.execute("INSERT INTO commits VALUES (?, randomblob(8))", (generation,))

    def _refusal(self) -> ZooReadOnly:
        return ZooReadOnly(
            f"{self.folder}: expected a zoo open for writing, found it open for reading only; open it without read_only"
        )

    def _read_binding(self) -> tuple[str, int]:
        with self._reading() as connection:
            rows = connection.execute("SELECT space, dim FROM zoo").fetchall()
        if len(rows) != 1 or not isinstance(rows[0][0], str) or not isinstance(rows[0][1], int) or rows[0][1] < 1:
            raise ZooDamaged(f"{self._path}: expected the name and dim of one space, found {rows!r}; {RESTORE}")
        return rows[0][0], rows[0][1]

    def _get(self, connection: Connection, id: str) -> Model:
        row = connection.execute(f"{MODEL} WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise ModelMissing(
                f"{self.folder}: expected a model {id!r}, found none; list the zoo's models for their ids"
            )
        return from_row(row, self._path)

    def _fetch(self, connection: Connection) -> Fetch:
        return lambda keys: read_matrix(connection, self.dim, self._path, keys)

    def _hits(self, connection: Connection, found: Found, k: int) -> list[Hit]:
        """Models and cosines of the ``k`` best, ties in order of id."""
        scores = dict(zip(found[0].tolist(), found[1].tolist(), strict=True))
        if len(scores) > k:
            last = min(scores.values())
            tied = [key for key, score in scores.items() if score == last]
            ids: dict[int, str] = dict(select_in(connection, "SELECT key, id FROM models WHERE key IN", tied))
            kept = sorted(tied, key=lambda key: ids.get(key, ""))[: k - len(scores) + len(tied)]
            scores = {key: score for key, score in scores.items() if score > last or key in set(kept)}
        models = {
            row[-1]: from_row(row, self._path) for row in select_in(connection, f"{MODEL} WHERE key IN", list(scores))
        }
        lost = [key for key in scores if key not in models]
        if lost:
            raise damaged_row(self._path, lost[0])
        vectors = dict(zip(found[0].tolist(), found[2], strict=True))
        return sorted(
            (Hit(models[key], score, vectors[key]) for key, score in scores.items()),
            key=lambda hit: (-hit.score, hit.model.id),
        )

    def _masks(self, connection: Connection, snapshot: Snapshot, where: Filter) -> tuple[Mask, ...]:
        """The rows of each segment that a filter lets through."""
        known = snapshot.masks.get(where)
        if known is None:
            condition, values = where.sql()
            rows = connection.execute(f"SELECT key FROM models WHERE {condition} ORDER BY key", values).fetchall()
            known = snapshot.masks_of(np.fromiter((key for (key,) in rows), np.int64, len(rows)))
            if len(snapshot.masks) >= FILTERS:
                snapshot.masks.clear()
            snapshot.masks[where] = known
        return known

    def _snapshot_of(self, connection: Connection) -> Snapshot:
        """The vectors of the state that a transaction sees; brought up to date when another was committed, by whatever process."""
        current, snapshot = State.read(connection), self._snapshot
        if snapshot.state == current:
            return snapshot
        with self._building:  # one thread does, those behind it find it done
            snapshot = self._snapshot
            if snapshot.state == current:
                return snapshot
            fresh = self._brought_up_to_date(connection, snapshot, current)
            if current.generation >= snapshot.state.generation or not snapshot.state.known_to(connection):
                self._snapshot = fresh  # else a later one was stored since this transaction began
            return fresh

    def _brought_up_to_date(self, connection: Connection, snapshot: Snapshot, current: State) -> Snapshot:
        if snapshot.state.generation > current.generation or not snapshot.state.known_to(connection):
            wanted = str(connection.execute("SELECT engine FROM zoo").fetchone()[0])
            wanted = wanted if wanted in ENGINES else AUTO
            if cached := load_engine(self.folder, connection, self.dim, wanted):
                with suppress(ZooDamaged):  # it does not fit the catalogue, which alone is the truth
                    return brought_up_to_date(connection, cached, current, self._path)
            snapshot = Snapshot(State(-1, b""), self.dim, wanted=wanted)
        return brought_up_to_date(connection, snapshot, current, self._path)


def unit_of(model: Model, vector: ArrayLike | None, dim: int) -> Vector | None:
    """A model's vector at length 1, if it has one.

    Raises:
        BadVector: it is none, or there should be one.
    """
    if vector is not None:
        return to_unit(vector, dim, f"vector of model {model.id!r}", BadVector)
    if model.found_by == FoundBy.METADATA:
        return None
    raise BadVector(
        f"vector of model {model.id!r}: expected one, as it was found by weights, found None; give it, or say metadata"
    )


def whole_number(k: object) -> int:
    """A number of hits.

    Raises:
        BadQuery: it is negative or not whole.
    """
    try:
        wanted = to_int(k)  # type: ignore[arg-type]
    except TypeError:
        wanted = -1
    if wanted < 0:
        raise BadQuery(f"number of hits: expected 0 or more, found {k!r}; ask for a whole number")
    return wanted


def has_zoo(folder: Path) -> bool:
    """Whether a folder holds a catalogue.

    Raises:
        DiskRefused: the system does not let us look.
    """
    try:
        return (folder / CATALOGUE).is_file()
    except OSError as error:
        raise DiskRefused(
            f"{folder}: expected a folder to look into, found: {error.strerror}; check access rights"
        ) from None
