"""A zoo in Milvus: the same answers as a zoo in a folder, from a server or from milvus-lite.

Milvus has no transactions: what one call writes goes in by requests of 500 rows (``table.BATCH``), and a crash in between leaves the first of them in, each
whole. The zoo's own row, which tells states apart, is written last.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from time import time
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from loradex.index.base import ALL, BaseZoo
from loradex.index.errors import (
    BadModel,
    BadQuery,
    BadVector,
    ModelMissing,
    SpaceMismatch,
    ZooDamaged,
    ZooExists,
    ZooMissing,
    ZooReadOnly,
)
from loradex.index.filters import Filter
from loradex.index.milvus.address import Address, mark
from loradex.index.milvus.collections import ENGINES, change_engine, load, make_collections, names_of
from loradex.index.milvus.connection import Connection
from loradex.index.milvus.expressions import both, of_filter, of_ids, of_words
from loradex.index.milvus.rows import (
    Row,
    file_row,
    from_file_row,
    from_row,
    is_id,
    packed,
    to_row,
    unpacked,
    vector_of,
)
from loradex.index.milvus.table import MOST, Table, parts_of
from loradex.index.milvus.zoo_row import OWN, VERSION, Binding
from loradex.index.model import Hit, KnownFile, Model
from loradex.index.sqlite.connections import WriterLock
from loradex.index.sqlite.engine import WIDE, WIDER
from loradex.index.sqlite.rows import Entry, to_entry
from loradex.index.sqlite.snapshot import State
from loradex.index.sqlite.verify import Progress
from loradex.index.sqlite.zoo import EMPTY, unit_of, whole_number
from loradex.index.vectors import Vector, Vectors, count, to_unit

MODEL: Final = ("id", "record")
COLUMNS: Final = (
    *MODEL,
    *"shard family format found_by rank added tags folders words placed vector fingerprint".split(),  # noqa: SIM905
)


class MilvusZoo(BaseZoo):
    """A zoo of models and unit vectors, bound to one space, in two collections of Milvus; ``folder`` holds its drawings.

    Any number of processes may read from a server while one writes; milvus-lite serves one process. One object may be shared by threads.
    """

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        """Connect to the zoo of a marked folder; use ``open``, ``create`` or ``open_or_create``."""
        self.folder, self.read_only = folder, read_only
        self._lock = None if read_only else WriterLock(folder)
        self._turn, self._counts = Lock(), dict[str, tuple[State, dict[str, int]]]()
        try:
            self._connection = Connection(folder)
        except BaseException:
            self._unlock()
            raise
        self._models, self._files = (Table(self._connection, name) for name in names_of(self._connection))

    @classmethod
    def create(cls, folder: Path, space: str, dim: int) -> Self:
        """Make an empty zoo for vectors (dim,) of a space, where the folder's mark says, else in files of the folder, and open it for writing.

        Raises:
            ZooExists: there is one.
            BadVector: ``dim`` is not a positive number.
            ZooError: the folder or the server cannot be used.
        """
        if dim < 1 or not space:
            raise BadVector(f"{folder}: expected a space's name and dim, found {space!r} and {dim}; pass the encoder's")
        mark(folder, Address())
        zoo = cls(folder, read_only=False)
        try:
            if zoo._is_there():
                raise ZooExists(f"{zoo._connection}: expected no zoo yet, found one; open it, or use another name")
            make_collections(zoo._connection, dim)
            Binding(VERSION, space, dim, "exact", 0).write(zoo._files)
            zoo._read_binding()
        except BaseException:
            zoo.close()
            raise
        return zoo

    @classmethod
    def open(cls, folder: Path, *, space: str | None = None, read_only: bool = False) -> Self:
        """Open a zoo for writing, as its only writer on this machine, or for reading; ``space`` is the one that it must be bound to.

        Raises:
            ZooMissing: there is none.
            SpaceMismatch: it is bound to another space.
            ZooLocked: it is being written, and ``read_only`` is false, or another process has the files of milvus-lite open.
            ZooError: the folder or the server cannot be used.
        """
        zoo = cls(folder, read_only=read_only)
        try:
            if not zoo._is_there():
                raise ZooMissing(
                    f"{zoo._connection}: expected a zoo, found none; check the address, or make one with `loradex index`"
                )
            zoo._read_binding()
            if space not in (None, zoo.space):
                raise SpaceMismatch(
                    f"{folder}: expected space {space!r}, found space {zoo.space!r}; use its encoder, or index into a new zoo"
                )
        except BaseException:
            zoo.close()
            raise
        return zoo

    @classmethod
    def there(cls, folder: Path) -> bool:
        """Whether there is a zoo where a marked folder says.

        Raises:
            ZooError: the server or the files cannot be used.
        """
        try:
            cls.open(folder, read_only=True).close()
        except ZooMissing:
            return False
        return True

    def close(self) -> None:
        """Let go of the server and of the lock; a second call does nothing."""
        self._connection.close()
        self._unlock()

    def __len__(self) -> int:
        """The number of models, with those that have no vector."""
        return len(self._models)

    def add(self, models: Sequence[Model], vectors: Vectors, fingerprints: Mapping[str, bytes] = EMPTY) -> int:
        """As ``Zoo.add``, but for a crash in the middle; when this returns, every later search finds the models.

        Raises:
            BadModel, BadVector: a model or vector cannot be stored; nothing is.
            ModelMissing: a fingerprint is of a model that is not in the zoo; nothing is stored.
            ZooError: the zoo cannot be written.
        """
        if (given := count(vectors, BadVector)) != len(models):
            raise BadVector(
                f"{self.folder}: expected a vector for each of {len(models)} models, found {given}; pass one for each"
            )
        batch = {
            model.id: (to_entry(model), unit_of(model, vector, self.dim))
            for model, vector in zip(models, vectors, strict=True)
        }
        prints = {id: packed(data.hex()) for id, data in fingerprints.items()}
        with self._changing():
            known = self._rows(list({*batch, *prints}))
            for id in prints.keys() - batch.keys() - known.keys():
                raise ModelMissing(
                    f"fingerprint of model {id!r}: expected the model in the zoo, found none; add both at once"
                )
            files = self.files_of(list(known))
            rows = [known[id] | {"fingerprint": prints[id]} for id in prints.keys() - batch.keys()]
            for id, (entry, unit) in batch.items():
                before = known.get(id)
                added = (
                    unpacked(before["record"])[-1]
                    if before
                    else entry.added
                    if entry.added is not None
                    else int(time())
                )
                own = prints.get(id) or (before["fingerprint"] if before else [])
                rows.append(to_row(entry, added, unit, self.dim, paths_of(entry, files.get(id, [])), own))
            self._models.upsert(rows)
        return len(batch)

    def remove(self, ids: Iterable[str]) -> int:
        """Take models out, with all that is known of their files; return how many there were.

        Raises:
            ZooError: the zoo cannot be written.
        """
        wanted = list(dict.fromkeys(ids))
        with self._changing():
            known = [row["id"] for row in self._models.get(wanted, ("id",))]
            self._files.delete(known, "model")
            self._models.delete(known)
            return len(known)

    def get(self, id: str) -> Model:
        """One model.

        Raises:
            ModelMissing: there is none with this id.
        """
        for row in self._models.get([id], MODEL):
            return from_row(row, str(self._connection))
        raise ModelMissing(f"{self.folder}: expected a model {id!r}, found none; list the zoo's models for their ids")

    def models_of(self, ids: Sequence[str]) -> dict[str, Model]:
        """Those of some models that are there, by id."""
        return {row["id"]: from_row(row, str(self._connection)) for row in self._models.get(ids, MODEL)}

    def has(self, id: str) -> bool:
        """Whether there is a model of this id."""
        return bool(self._models.get([id], ("id",)))

    def state(self) -> State:
        """The last state, by which what was made from the zoo is known to be of it still."""
        binding = Binding.of(self._files)
        return State(binding.generation, binding.token.encode())

    def models(self, where: Filter = ALL, after: str = "") -> Iterator[Model]:
        """All models that a filter lets through, in order of id, read in pages. ``after`` is an id after which they begin.

        Their ids are all in memory, some 80 bytes each.

        Raises:
            BadQuery: the filter cannot be used.
        """
        condition = of_filter(where)
        while True:
            state = self.state()
            ids = sorted(row["id"] for row in self._models.walk(condition, ("id",)) if row["id"] > after)
            for some in parts_of(ids):
                rows = self._models.get(some, MODEL, condition)
                yield from (from_row(row, str(self._connection)) for row in sorted(rows, key=lambda row: row["id"]))
            if not ids or state == self.state():
                return
            after = ids[-1]

    def counts(self, column: str) -> dict[str, int]:
        """How many models there are of each ``family``, ``format``, ``found_by`` or ``tag``, the most frequent first.

        All models are read for it, once for each state.
        """
        state = self.state()
        if column not in self._counts or self._counts[column][0] != state:
            found: dict[str, dict[str, int]] = {"family": {}, "format": {}, "found_by": {}, "tag": {}}
            for row in self._models.walk("", MODEL):
                entry = to_entry(from_row(row, str(self._connection)))
                *_, format = entry.texts
                values = {
                    "family": [entry.texts[2]],
                    "format": [format],
                    "found_by": [entry.texts[3]],
                    "tag": entry.tags,
                }
                for name, some in values.items():
                    for value in some:
                        if value is not None:
                            found[name][value] = found[name].get(value, 0) + 1
            self._counts = {
                name: (state, dict(sorted(each.items(), key=lambda pair: (-pair[1], pair[0]))))
                for name, each in found.items()
            }
        return self._counts[column][1]

    def vectors(self, ids: Sequence[str]) -> Vector:
        """The unit vectors (n, dim) of models, in the order of ``ids`` (n,).

        Raises:
            ModelMissing: one of them is not there or has no vector.
        """
        found = self.vectors_of(ids)
        for id in ids:
            if id not in found:
                raise ModelMissing(
                    f"{self.folder}: expected a vector of model {id!r}, found none; index its file again"
                )
        return np.stack([found[id] for id in ids]) if ids else np.empty((0, self.dim), np.float32)

    def vectors_of(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The unit vectors (dim,) of those models that have one, by id."""
        rows = self._models.get(ids, ("id", "placed", "vector"))
        return {row["id"]: vector for row in rows if (vector := vector_of(row)) is not None}

    def fingerprints(self, ids: Sequence[str] | None = None) -> dict[str, bytes]:
        """The fingerprints of all models that have one, or of some, by id."""
        columns = ("id", "fingerprint")
        rows = self._models.walk("", columns) if ids is None else self._models.get(ids, columns)
        return {
            row["id"]: bytes.fromhex(unpacked(row["fingerprint"]))
            for row in sorted(rows, key=lambda row: row["id"])
            if row["fingerprint"]
        }

    def search_many(
        self, queries: NDArray[np.floating] | Sequence[NDArray[np.floating]], k: int = 10, where: Filter = ALL
    ) -> list[list[Hit]]:
        """The hits of each query (q, dim).

        Raises:
            BadQuery: a query is no direction in this space, ``k`` is negative, or the filter cannot be used.
        """
        wanted = min(whole_number(k), MOST)
        if not count(queries, BadQuery):
            return []
        units = [to_unit(query, self.dim, "query", BadQuery) for query in queries]
        condition = both("placed == true", of_filter(where))
        return [self._nearest(unit, wanted, condition) for unit in units] if wanted else [[] for _ in units]

    def _nearest(self, query: Vector, k: int, condition: str) -> list[Hit]:
        """The best of the candidates that Milvus gives, by cosines in float64: with FLAT once none outside can be better or tie with the last."""
        slack = self.dim * 2.0**-23  # of an inner product of two unit vectors in float32, in any order of sums

        def scores(rows: Sequence[Row]) -> NDArray[np.float64]:
            vectors = np.array([row["vector"] for row in rows], np.float32).reshape(-1, self.dim)
            return (vectors.astype(np.float64) * query).sum(axis=1)

        def enough(rows: Sequence[Row]) -> bool:
            return bool(np.sort(scores(rows))[-k] > rows[-1]["distance"] + slack)

        candidates = k if self.engine == "exact" else WIDER * k + WIDE
        rows = self._models.search(query.tolist(), "vector", candidates, condition, (*MODEL, "vector"), enough)
        best = sorted(zip(scores(rows).tolist(), rows, strict=True), key=lambda pair: (-pair[0], pair[1]["id"]))[:k]
        return [
            Hit(from_row(row, str(self._connection)), score, np.array(row["vector"], np.float32)) for score, row in best
        ]

    def find(self, words: Sequence[str], k: int = 10, where: Filter = ALL, without: Sequence[str] = ()) -> list[Model]:
        """As ``Zoo.find``, in Milvus's own order of BM25, at most ``MOST``.

        Raises:
            BadQuery: ``k`` is negative, or the filter cannot be used.
        """
        condition, asked, wanted = of_filter(where), of_words(words, without), min(whole_number(k), MOST)
        if asked is None or not wanted:
            return []

        def enough(rows: Sequence[Row]) -> bool:
            return bool(rows[wanted - 1]["distance"] != rows[-1]["distance"])

        rows = self._models.search(asked[1], "words_bm25", wanted, both(condition, asked[0]), MODEL, enough)
        places = {distance: place for place, distance in reversed(list(enumerate(row["distance"] for row in rows)))}
        best = sorted(rows, key=lambda row: (places[row["distance"]], row["id"]))[:wanted]
        return [from_row(row, str(self._connection)) for row in best]

    def known_files(self) -> dict[str, KnownFile]:
        """The files that were read, by path."""
        files = (from_file_row(row, str(self._connection)) for row in self._files.walk(f'id != "{OWN}"', MODEL))
        return {file.path: file for file in sorted(files, key=lambda file: file.path)}

    def files_of(self, ids: Sequence[str]) -> dict[str, list[KnownFile]]:
        """The files of some models, by id."""
        found: dict[str, list[KnownFile]] = {}
        for some in parts_of([id for id in ids if is_id(id)]):
            for row in self._files.walk(of_ids(some, "model"), MODEL, total=len(some)):
                file = from_file_row(row, str(self._connection))
                found.setdefault(str(file.model_id), []).append(file)
        return {id: sorted(files, key=lambda file: file.path) for id, files in found.items()}

    def note_files(self, files: Iterable[KnownFile], forget: Iterable[str] = ()) -> None:
        """Remember what became of files, and forget those of some paths; add their models first.

        Raises:
            ModelMissing: a file names a model that is not in the zoo; nothing is noted.
            ZooError: the zoo cannot be written.
        """
        noted, gone = {file.path: file for file in files}, set(forget)
        written = {file_row(file)["id"]: file for file in noted.values()}
        with self._changing():
            named = {file.model_id for file in noted.values() if file.model_id is not None}
            known = self._rows(sorted(named))
            for file in noted.values():
                if file.model_id is not None and file.model_id not in known:
                    raise ModelMissing(
                        f"file {file.path!r}: expected model {file.model_id!r} in the zoo, found none; add it first"
                    )
            dropped = [file_row(KnownFile(path, 0, 0))["id"] for path in gone - noted.keys()]
            before = self._files.get([*dropped, *written], ("id", "model"))
            known |= self._rows(sorted({row["model"] for row in before} - named - {""}))
            after = {
                id: [file for file in some if file.path not in noted and file.path not in gone]
                for id, some in self.files_of(list(known)).items()
            }
            for file in noted.values():
                after.setdefault(str(file.model_id), []).append(file)
            changed = self._changed(known, after)[
                0
            ]  # made first: what has no room is refused before anything is written
            self._files.delete(dropped)
            self._files.upsert([file_row(file) for file in noted.values()])
            self._models.upsert(changed)

    def save_engine(self, wanted: str | None = None) -> bool:
        """Choose how Milvus indexes the vectors: ``exact``, or ``auto`` as it sees fit; without a choice, nothing is to be done, as Milvus keeps its own.

        Raises:
            BadQuery: there is no such engine, or this server has none.
            ZooError: the zoo cannot be written.
        """
        if wanted is None:
            if self.read_only:
                raise self._refusal()
            return False
        if wanted not in ENGINES:
            raise BadQuery(f"engine: expected {', '.join(ENGINES)} in Milvus, found {wanted!r}; choose one of them")
        with self._changing():
            change_engine(self._connection, wanted)
            replace(Binding.of(self._files), engine=wanted).write(self._files)
            self.engine = wanted
        return True

    def compact(self) -> None:
        """Have Milvus give free space back.

        Raises:
            ZooError: the zoo cannot be written.
        """
        with self._changing():
            for table in (self._models, self._files):
                table.ask("flush")
                table.ask("compact")

    def verify(self, progress: Progress = lambda done, total: None) -> list[str]:
        """All rows that are not as they were written, a line each; none for a sound zoo."""
        total, files = len(self), self.known_files()
        paths: dict[str, list[KnownFile]] = {}
        for file in files.values():
            paths.setdefault(str(file.model_id), []).append(file)
        problems = []
        for done, row in enumerate(self._models.walk("", COLUMNS), 1):
            try:
                if self._made_anew(row, paths.get(row["id"], [])) != row:
                    problems.append(
                        f"{self._connection}: the columns of model {row['id']!r} are not those of its record"
                    )
            except (ZooDamaged, BadVector, BadModel) as error:
                problems.append(str(error))
            progress(done, total)
        lost = {file.model_id for file in files.values() if file.model_id} - {
            row["id"] for row in self._models.get([*paths], ("id",))
        }
        return [
            *problems,
            *(f"{self._connection}: a file of model {id!r}, which is not there" for id in sorted(map(str, lost))),
        ]

    def rebuild(self, engine: str | None = None) -> list[str]:
        """Make all columns anew from the records; return the ids of models that were damaged and are taken out.

        Raises:
            BadQuery: there is no such engine.
            ZooError: the zoo cannot be written.
        """
        lost = []
        with self._changing():
            for some in parts_of([row["id"] for row in self._models.walk("", ("id",))]):
                rows = self._rows(some)
                changed, damaged = self._changed(rows, self.files_of(list(rows)))
                self._models.upsert(changed)
                lost += damaged
        self.remove(lost)
        if engine is not None:
            self.save_engine(engine)
        return lost

    def _changed(
        self, rows: Mapping[str, Row], files: Mapping[str, Sequence[KnownFile]]
    ) -> tuple[list[Row], list[str]]:
        """The rows whose columns are not those of their record and files, made anew; and the ids of rows that no model can be read from."""
        lost, changed = [], []
        for id, row in rows.items():
            try:
                if (anew := self._made_anew(row, files.get(id, []))) != row:
                    changed.append(anew)
            except (ZooDamaged, BadVector):
                lost.append(id)
        return changed, lost

    def _made_anew(self, row: Row, files: Sequence[KnownFile]) -> Row:
        """A row as it is made of its record, its vector and its model's files."""
        model, vector = from_row(row, str(self._connection)), vector_of(row)
        entry = to_entry(model)
        unit = None if vector is None else to_unit(vector, self.dim, f"vector of model {model.id!r}", BadVector)
        return to_row(entry, entry.added or 0, unit, self.dim, paths_of(entry, files), row["fingerprint"]) | {
            "record": row["record"]
        }

    def _rows(self, ids: Sequence[str]) -> dict[str, Row]:
        """The whole rows of those models that are there, by id."""
        return {row["id"]: row for row in self._models.get(ids, COLUMNS)}

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A change, after which, even if it was cut short, the zoo's state is another; threads take turns."""
        if self.read_only:
            raise self._refusal()
        with self._turn:
            Binding.of(self._files)
            try:
                yield
            finally:
                Binding.of(self._files).write(self._files)

    def _refusal(self) -> ZooReadOnly:
        return ZooReadOnly(
            f"{self.folder}: expected a zoo open for writing, found it open for reading only; open it without read_only"
        )

    def _is_there(self) -> bool:
        tables = (self._models, self._files)
        if not all(table.ask("has_collection") for table in tables):
            return False
        load(self._connection, mend=not self.read_only)
        return bool(self._files.get([OWN], ("id",)))

    def _read_binding(self) -> None:
        binding = Binding.of(self._files)
        self.space, self.dim, self.engine = binding.space, binding.dim, binding.engine

    def _unlock(self) -> None:
        if self._lock:
            self._lock.release()


def paths_of(entry: Entry, files: Sequence[KnownFile]) -> list[str | None]:
    """Where a model lies: its own path, and those of its files."""
    return [entry.texts[4], *(file.path for file in files)]
