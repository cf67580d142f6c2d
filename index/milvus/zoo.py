"""A zoo in Milvus, with the same answers as a zoo in a folder.

Milvus has no transactions. A call writes in requests of 500 rows (``table.BATCH``), and a crash in between leaves the
first of them stored. The ids of the models that it changes are written first, so that all their rows are derived again
when the zoo is opened for writing; the row of the zoo itself, which identifies its state, is written last.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from time import time
from typing import Self

import numpy as np
from numpy.typing import NDArray

from loradex.index.base import ALL, NO_FINGERPRINTS, BaseZoo, Progress, no_progress
from loradex.index.checks import GivenPositions, check_binding, checked_number_of_hits
from loradex.index.entry import Entry
from loradex.index.errors import (
    BadQuery,
    ZooExists,
    ZooMissing,
    no_model_for_file,
    no_model_for_fingerprint,
    outdated_error,
    read_only_error,
)
from loradex.index.evidence import PLACED, Evidence, Positions, from_bits
from loradex.index.filters import Filter
from loradex.index.lock import WriterLock
from loradex.index.milvus.address import Address, write_address
from loradex.index.milvus.collections import ENGINES, change_engine, create_collections, load_collections
from loradex.index.milvus.connection import Connection
from loradex.index.milvus.derived import ModelRows, refreshed_rows
from loradex.index.milvus.expressions import model_expression, word_query
from loradex.index.milvus.migration import is_current, migrate
from loradex.index.milvus.rows import Row, digest, file_row, model_row, pack, position_id, position_rows
from loradex.index.milvus.table import MAX_ROWS
from loradex.index.milvus.tables import Tables
from loradex.index.milvus.verify import find_problems
from loradex.index.milvus.zoo_row import VERSION, ZOO_ID, ZooRow, read_unfinished, write_unfinished
from loradex.index.model import Hit, KnownFile, Model, State
from loradex.index.vectors import Vector, scored_queries


class MilvusZoo(BaseZoo):
    """A zoo in three collections of Milvus; see ``BaseZoo`` for its methods.

    The folder holds its address, previews and lock. Any number of processes may read from a server while one process
    per machine writes; milvus-lite serves one process.
    """

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        """Connect to the address in a folder; use ``open``, ``create`` or ``open_or_create`` instead."""
        self.folder, self.read_only = folder, read_only
        self._lock = None if read_only else WriterLock(folder)
        self._turn = Lock()
        self._unfinished = False  # whether models may be left half changed
        self._counts: tuple[State, dict[str, dict[str, int]]] | None = None
        try:
            self._connection = Connection(folder)
        except BaseException:
            self._unlock()
            raise
        self._tables = Tables(self._connection)
        self._models, self._files = self._tables.models, self._tables.files

    @classmethod
    def create(cls, folder: Path, space: str, dim: int) -> Self:
        """Create an empty zoo at the folder's address, else in files of the folder, as ``BaseZoo.create``."""
        check_binding(folder, space, dim)
        write_address(folder, Address())
        zoo = cls(folder, read_only=False)
        try:
            if zoo._has_row():
                raise ZooExists(f"{zoo._connection}: expected no zoo yet, found one; open it, or use another name")
            create_collections(zoo._connection, dim)
            ZooRow(VERSION, space, dim, "exact", 0).write(zoo._files, finished=True)
            zoo._read_binding()
        except BaseException:
            zoo.close()
            raise
        return zoo

    @classmethod
    def open(cls, folder: Path, *, space: str | None = None, read_only: bool = False) -> Self:
        """Open the zoo at the folder's address, for writing as its only writer on this machine, as ``BaseZoo.open``.

        Raises:
            ZooLocked: also if another process has the files of milvus-lite open.
            ZooOutdated: it has an earlier layout, and ``read_only`` is true.
        """
        zoo = cls(folder, read_only=read_only)
        try:
            if not zoo._has_row():
                raise ZooMissing(
                    f"{zoo._connection}: expected a zoo, found none; check the address, or make one with `loradex index`"
                )
            zoo._read_binding()
            zoo._check_space(space)
            zoo._prepare()
        except BaseException:
            zoo.close()
            raise
        return zoo

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether there is a zoo at the folder's address, as ``BaseZoo.exists``."""
        zoo = cls(folder, read_only=True)
        try:
            return zoo._has_row()
        finally:
            zoo.close()

    def close(self) -> None:
        """Close the connection and release the lock; a second call does nothing."""
        self._connection.close()
        self._unlock()

    def __len__(self) -> int:
        """The number of models, with those that have no vector."""
        return len(self._models)

    def add(
        self,
        models: Sequence[Model],
        positions: Sequence[GivenPositions] | NDArray[np.floating],
        fingerprints: Mapping[str, bytes] = NO_FINGERPRINTS,
    ) -> int:
        """Insert or replace models, as ``BaseZoo.add``; a crash may leave a part of the batch stored."""
        batch = {entry.id: (entry, of_model) for entry, of_model in self._checked_batch(models, positions)}
        packed = {id: pack(data.hex()) for id, data in fingerprints.items()}
        with self._changing():
            stored = self._models.rows([*{*batch, *packed}])
            for id in packed.keys() - batch.keys() - stored.keys():
                raise no_model_for_fingerprint(id)
            files = self._files.by_model([id for id in batch if id in stored])
            rows, stale = list[ModelRows](), list[str]()
            for id, (entry, of_model) in batch.items():
                previous = stored.get(id)
                fingerprint = packed.get(id) or (previous["fingerprint"] if previous else [])
                row = model_row(entry, time_added(entry, previous), of_model, files.get(id, []), fingerprint)
                rows.append(ModelRows(row, position_rows(row, of_model)))
                stale += [position_id(id, kind) for kind in kinds_of(previous) if kind not in of_model]
            rows += [ModelRows(stored[id] | {"fingerprint": packed[id]}, []) for id in packed.keys() - batch.keys()]
            self._mark([each.model["id"] for each in rows])
            self._tables.write(rows, stale)
        return len(batch)

    def remove(self, ids: Iterable[str]) -> int:
        """Remove models, as ``BaseZoo.remove``."""
        unique_ids = list(dict.fromkeys(ids))
        with self._changing():
            stored_ids = [row["id"] for row in self._models.get(unique_ids, ("id",))]
            self._mark(stored_ids)
            self._tables.remove(stored_ids)
            return len(stored_ids)

    def note_files(self, files: Iterable[KnownFile], forget: Iterable[str] = ()) -> None:
        """Record files, as ``BaseZoo.note_files``, and update the rows of all models that gain or lose a file."""
        noted, forgotten = {file.path: file for file in files}, set(forget)
        rows = [file_row(file) for file in noted.values()]
        with self._changing():
            new_ids = {file.model_id for file in noted.values() if file.model_id is not None}
            stored = self._models.rows(sorted(new_ids))
            for file in noted.values():
                if file.model_id is not None and file.model_id not in stored:
                    raise no_model_for_file(file.path, file.model_id)
            dropped = [digest(path) for path in forgotten - noted.keys()]
            previous_rows = self._files.get([*dropped, *(row["id"] for row in rows)], ("id", "model"))
            previous_ids = {row["model"] for row in previous_rows} - {""}
            stored |= self._models.rows(sorted(previous_ids - new_ids))
            files_by_model = {
                id: [file for file in of_model if file.path not in noted and file.path not in forgotten]
                for id, of_model in self._files.by_model(list(stored)).items()
            }
            for file in noted.values():
                files_by_model.setdefault(str(file.model_id), []).append(file)
            # before anything is written, as a model with too many folders is refused
            outdated = refreshed_rows(stored, files_by_model, self.dim, self._connection)
            self._mark(stored)
            self._files.delete(dropped)
            self._files.upsert(rows)
            self._tables.write(outdated)

    def has(self, id: str) -> bool:
        """Whether there is a model with this id."""
        return bool(self._models.get([id], ("id",)))

    def models_by_id(self, ids: Sequence[str]) -> dict[str, Model]:
        """Return the models of those ids that exist, by id."""
        return self._models.models(ids)

    def models(self, where: Filter = ALL, after: str = "") -> Iterator[Model]:
        """Yield models in order of id, as ``BaseZoo.models``. All their ids are held in memory, some 80 bytes each."""
        condition = model_expression(where)
        while True:
            state = self.state()
            ids = sorted(id for id in self._models.ids(condition) if id > after)
            yield from self._models.in_order(ids, condition)
            if not ids or state == self.state():
                return
            after = ids[-1]  # look for models that were added in the meantime

    def counts(self, column: str) -> dict[str, int]:
        """Return the counts of a column, as ``BaseZoo.counts``; all models are read for it, once for each state."""
        state = self.state()
        if self._counts is None or self._counts[0] != state:
            self._counts = state, self._models.counts(self._files.all_by_model())
        return self._counts[1][column]

    def state(self) -> State:
        """Return the state of the last change."""
        return ZooRow.read(self._files).state

    def positions_by_id(self, ids: Sequence[str]) -> dict[str, Positions]:
        """Return the positions of those models that have one, by id, the weightiest evidence first."""
        return self._models.positions(ids, self.dim)

    def fingerprints(self, ids: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return the fingerprints of all models that have one, or of some, by id."""
        return self._models.fingerprints(ids)

    def known_files(self) -> dict[str, KnownFile]:
        """Return all files that were indexed, by path."""
        return {file.path: file for file in self._files.files()}

    def files_by_model(self, ids: Sequence[str]) -> dict[str, list[KnownFile]]:
        """Return the files of some models, by model id."""
        return self._files.by_model(ids)

    def _search(self, queries: Vector, k: int, where: Filter) -> list[list[Hit]]:
        """Return the hits of each query (q, dim), a unit vector times its scale, at most ``MAX_ROWS``."""
        where.check()
        k, exact = min(k, MAX_ROWS), self.engine == "exact"
        if not k or not where.kinds:
            return [[] for _ in queries]
        return [
            self._models.hits(self._tables.positions.nearest(query, k, where, exact=exact), query, where.kinds)
            for query in scored_queries(queries)
        ]

    def find(self, words: Sequence[str], k: int = 10, where: Filter = ALL, without: Sequence[str] = ()) -> list[Model]:
        """Return the best models by full-text search, as ``BaseZoo.find``, at most ``MAX_ROWS``."""
        condition, query = model_expression(where), word_query(words, without)
        k = min(checked_number_of_hits(k), MAX_ROWS)
        return self._models.match(query, k, condition) if query and k else []

    def save_engine(self, kind: str | None = None) -> bool:
        """Change the index of the vectors to ``exact``, or to Milvus's choice (``auto``); there is nothing to save."""
        if kind is None:
            self._require_writable()
            return False
        if kind not in ENGINES:
            raise BadQuery(f"engine: expected {', '.join(ENGINES)} in Milvus, found {kind!r}; choose one of them")
        with self._changing():
            change_engine(self._connection, kind)
            replace(ZooRow.read(self._files), engine=kind).write(self._files, finished=True)
            self.engine = kind
        return True

    def compact(self) -> None:
        """Have Milvus give free space back."""
        with self._changing():
            for table in (self._models, self._tables.positions, self._files):
                table.call("flush")
                table.call("compact")

    def verify(self, progress: Progress = no_progress) -> list[str]:
        """Return every row that is not as it was written, a line each."""
        return find_problems(self._tables, self.dim, progress)

    def rebuild(self, engine: str | None = None) -> list[str]:
        """Recompute all fields from the records, and remove damaged models, as ``BaseZoo.rebuild``."""
        with self._changing():
            damaged_ids = self._tables.repair(self._tables.model_ids(), self.dim)
        self.remove(damaged_ids)
        if engine is not None:
            self.save_engine(engine)
        return damaged_ids

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the zoo, then write a new state, even if the change was cut short; threads take turns."""
        self._require_writable()
        with self._turn:
            ZooRow.read(self._files)  # nothing is changed in a zoo of a later layout
            if self._unfinished:
                ids = read_unfinished(self._files)
                self._tables.repair(self._tables.model_ids() if ids is None else ids, self.dim)
                self._unfinished = False
            try:
                yield
                self._unfinished = False
            finally:
                ZooRow.read(self._files).write(self._files, finished=not self._unfinished)

    def _mark(self, ids: Collection[str]) -> None:
        """Write the ids of models that are about to be changed."""
        if ids:
            self._unfinished = True
            write_unfinished(self._files, ids)

    def _require_writable(self) -> None:
        if self.read_only:
            raise read_only_error(self.folder)

    def _has_row(self) -> bool:
        """Whether the zoo exists."""
        if not self._files.call("has_collection"):
            return False
        self._files.call("load_collection")
        return bool(self._files.get([ZOO_ID], ("id",)))

    def _read_binding(self) -> None:
        row = ZooRow.read(self._files)
        self.space, self.dim, self.engine = row.space, row.dim, row.engine

    def _prepare(self) -> None:
        """Load the collections; bring a zoo of an earlier layout, or an interrupted change, to its end.

        Raises:
            ZooOutdated: the zoo has an earlier layout, and was opened for reading only.
        """
        row = ZooRow.read(self._files)
        if not is_current(self._connection, row):
            if self.read_only:
                found = row.version if row.version < VERSION else "one on the way to it"
                raise outdated_error(self._connection, self.folder, f"layout {VERSION}", found)
            migrate(self._tables, row)
        load_collections(self._connection, repair=not self.read_only)
        self._unfinished = not self.read_only and read_unfinished(self._files) != []
        if self._unfinished:
            with self._changing():
                pass

    def _unlock(self) -> None:
        if self._lock:
            self._lock.release()


def time_added(entry: Entry, previous: Row | None) -> int:
    """Return when a model was added: by the row that it replaces, else by the entry, else now."""
    if previous:
        return int(previous["added"])
    return entry.added if entry.added is not None else int(time())


def kinds_of(row: Row | None) -> tuple[Evidence, ...]:
    """Return the kinds of evidence of a stored row, all of them if the row is damaged."""
    try:
        return from_bits(row["evidence"]) if row else ()
    except ValueError:
        return PLACED
