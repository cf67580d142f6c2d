"""A zoo in a folder: a catalogue in SQLite, searched by an index engine that is derived from it."""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from loradex.index.base import ALL, NO_FINGERPRINTS, PREVIEWS, BaseZoo, Progress, no_progress
from loradex.index.checks import GivenPositions, check_binding, checked_number_of_hits
from loradex.index.disk import sync, sync_folder, typed_errors
from loradex.index.errors import (
    BadQuery,
    DiskRefused,
    ZooExists,
    ZooMissing,
    no_model_for_file,
    no_model_for_fingerprint,
)
from loradex.index.evidence import Positions
from loradex.index.filters import Filter
from loradex.index.lock import WriterLock
from loradex.index.model import Hit, KnownFile, Model, State
from loradex.index.sqlite.catalogue import CATALOGUE, Catalogue, has_catalogue
from loradex.index.sqlite.commits import read_state
from loradex.index.sqlite.conditions import filter_condition, match_query
from loradex.index.sqlite.derived_words import files_by_id, keys_of_files, refresh_words
from loradex.index.sqlite.engine import AUTO, ENGINES
from loradex.index.sqlite.reads import (
    count_models,
    read_files,
    read_fingerprints,
    read_models,
    read_page,
    read_positions_by_id,
    search_words,
)
from loradex.index.sqlite.repair import repair
from loradex.index.sqlite.rows import key_of, model_of_row, to_stored
from loradex.index.sqlite.vector_index import VectorIndex
from loradex.index.sqlite.verify import find_problems
from loradex.index.sqlite.writer import write_empty_catalogue
from loradex.index.sqlite.writes import delete_file, delete_model, put_file, put_fingerprint, put_model
from loradex.index.vectors import Vector

PAGE: Final = 500  # models that ``models`` reads at a time


class Zoo(BaseZoo):
    """A zoo in a folder of this machine; see ``BaseZoo`` for its methods.

    Any number of processes may read while one writes. Every write is one transaction, and every search sees one
    committed state.
    """

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        """Open the zoo of a folder; use ``open``, ``create`` or ``open_or_create`` instead."""
        self.folder, self.read_only = folder, read_only
        self._catalogue = Catalogue(folder, read_only=read_only)
        self.space, self.dim = self._catalogue.space, self._catalogue.dim
        self._index = VectorIndex(self._catalogue)

    @classmethod
    def create(cls, folder: Path, space: str, dim: int) -> Self:
        """Create an empty zoo and open it for writing, as ``BaseZoo.create``."""
        check_binding(folder, space, dim)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskRefused(
                f"{folder}: expected to make a folder, found: {error.strerror}; use another folder"
            ) from None
        lock = WriterLock(folder)
        try:
            if has_catalogue(folder):
                raise ZooExists(f"{folder}: expected no zoo yet, found one; open it, or use another folder")
            write_empty_catalogue(folder / CATALOGUE, space, dim)
        finally:
            lock.release()
        return cls.open(folder, space=space)

    @classmethod
    def open(cls, folder: Path, *, space: str | None = None, read_only: bool = False) -> Self:
        """Open a zoo, as ``BaseZoo.open``."""
        if not has_catalogue(folder):
            raise ZooMissing(
                f"{folder}: expected a zoo ({CATALOGUE}), found none; check the path, or make one with `loradex index`"
            )
        zoo = cls(folder, read_only=read_only)
        try:
            zoo._check_space(space)
        except BaseException:
            zoo.close()
            raise
        return zoo

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Whether a folder holds a catalogue, as ``BaseZoo.exists``."""
        return has_catalogue(folder)

    def close(self) -> None:
        """Close all files; a second call does nothing."""
        self._catalogue.close()

    def __len__(self) -> int:
        """The number of models, with those that have no position."""
        with self._catalogue.reading() as connection:
            return int(connection.execute("SELECT count(*) FROM models").fetchone()[0])

    def add(
        self,
        models: Sequence[Model],
        positions: Sequence[GivenPositions] | NDArray[np.floating],
        fingerprints: Mapping[str, bytes] = NO_FINGERPRINTS,
    ) -> int:
        """Insert or replace models in one transaction, as ``BaseZoo.add``."""
        batch = self._checked_batch(models, positions)
        with self._catalogue.changing() as (connection, generation):
            replaced = [put_model(connection, entry, given, generation) for entry, given in batch]
            refresh_words(connection, self._catalogue.path, {key for key in replaced if key is not None})
            for id, data in fingerprints.items():
                key = key_of(connection, id)
                if key is None:
                    raise no_model_for_fingerprint(id)
                put_fingerprint(connection, key, data)
        return len({entry.id for entry, _ in batch})

    def remove(self, ids: Iterable[str]) -> int:
        """Remove models in one transaction, as ``BaseZoo.remove``."""
        with self._catalogue.changing() as (connection, generation):
            return sum(delete_model(connection, id, generation) for id in dict.fromkeys(ids))

    def note_files(self, files: Iterable[KnownFile], forget: Iterable[str] = ()) -> None:
        """Record files in one transaction, as ``BaseZoo.note_files``."""
        files, forget = list(files), list(forget)
        with self._catalogue.changing() as (connection, _):  # a new state, as filters and words depend on files
            changed = keys_of_files(connection, [*forget, *(file.path for file in files)])
            for path in forget:
                delete_file(connection, path)
            for file in files:
                key = key_of(connection, file.model_id) if file.model_id is not None else None
                if file.model_id is not None and key is None:
                    raise no_model_for_file(file.path, file.model_id)
                put_file(connection, file, key)
                changed |= set() if key is None else {key}
            refresh_words(connection, self._catalogue.path, changed)

    def has(self, id: str) -> bool:
        """Whether there is a model with this id."""
        with self._catalogue.reading() as connection:
            return key_of(connection, id) is not None

    def models_by_id(self, ids: Sequence[str]) -> dict[str, Model]:
        """Return the models of those ids that exist, by id."""
        with self._catalogue.reading() as connection:
            return read_models(connection, self._catalogue.path, ids)

    def models(self, where: Filter = ALL, after: str = "") -> Iterator[Model]:
        """Yield models in order of id, as ``BaseZoo.models``; each page is of one committed state."""
        condition, last = filter_condition(where), to_stored(after)
        while True:
            with self._catalogue.reading() as connection:
                rows = read_page(connection, condition, last, PAGE)
            if not rows:
                return
            for row in rows:
                yield model_of_row(row, self._catalogue.path)
            last = rows[-1][0]

    def counts(self, column: str) -> dict[str, int]:
        """Return the counts of a column, as ``BaseZoo.counts``."""
        with self._catalogue.reading() as connection:
            return count_models(connection, column)

    def state(self) -> State:
        """Return the last committed state."""
        with self._catalogue.reading() as connection:
            return read_state(connection)

    def positions_by_id(self, ids: Sequence[str]) -> dict[str, Positions]:
        """Return the positions of those models that have one, as ``BaseZoo.positions_by_id``."""
        if not ids:
            return {}
        with self._catalogue.reading() as connection:
            return read_positions_by_id(connection, self._catalogue.path, self.dim, ids)

    def fingerprints(self, ids: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return the fingerprints of all models that have one, or of some, by id."""
        if ids is not None and not ids:
            return {}
        with self._catalogue.reading() as connection:
            return dict(read_fingerprints(connection, self._catalogue.path, ids))

    def known_files(self) -> dict[str, KnownFile]:
        """Return all files that were indexed, by path."""
        with self._catalogue.reading() as connection:
            return {file.path: file for file in read_files(connection, self._catalogue.path)}

    def files_by_model(self, ids: Sequence[str]) -> dict[str, list[KnownFile]]:
        """Return the files of some models, by model id."""
        with self._catalogue.reading() as connection:
            return files_by_id(connection, self._catalogue.path, ids)

    def _search(self, queries: Vector, k: int, where: Filter) -> list[list[Hit]]:
        """Return the hits of each query (q, dim), a unit vector times its scale, all from one committed state."""
        with self._catalogue.reading() as connection:
            return self._index.search(connection, queries, k, where)

    def find(self, words: Sequence[str], k: int = 10, where: Filter = ALL, without: Sequence[str] = ()) -> list[Model]:
        """Return the best models by full-text search, as ``BaseZoo.find``."""
        condition, query, k = filter_condition(where), match_query(words, without), checked_number_of_hits(k)
        if query is None:
            return []
        with self._catalogue.reading() as connection:
            return search_words(connection, self._catalogue.path, query, k, condition)

    def save_engine(self, kind: str | None = None) -> bool:
        """Save the engine, as ``BaseZoo.save_engine``; with a kind it is saved in any case."""
        if kind is None:
            self._catalogue.require_writer()
        elif kind in (AUTO, *ENGINES):
            with self._catalogue.changing() as (connection, _):
                connection.execute("UPDATE zoo SET engine = ?", (kind,))
            self._index.reset()
        else:
            raise BadQuery(f"engine: expected {AUTO}, {', '.join(ENGINES)}, found {kind!r}; choose one of them")
        with self._catalogue.reading() as connection:
            return self._index.save(connection, always=kind is not None)

    def copy_to(self, folder: Path) -> None:
        """Write a copy of the last committed state, as a zoo in another folder, while others read and write this one.

        Raises:
            ZooExists: there is a zoo in the folder.
            DiskRefused: the folder cannot be written.
        """
        if has_catalogue(folder):
            raise ZooExists(f"{folder}: expected no zoo yet, found one; name a new folder")
        with typed_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f".{CATALOGUE}.part"
            part.unlink(missing_ok=True)
            self._catalogue.copy_to(part)
            with part.open("rb+") as file:
                sync(file)
            if (self.folder / PREVIEWS).is_dir():
                shutil.copytree(self.folder / PREVIEWS, folder / PREVIEWS, dirs_exist_ok=True)
            part.replace(folder / CATALOGUE)
            sync_folder(folder)

    def compact(self) -> None:
        """Drop the history of changes, merge the full-text index, and give free space back to the disk."""
        with self._catalogue.changing() as (connection, generation):
            connection.execute("DELETE FROM commits WHERE generation < ?", (generation,))
            connection.execute("DELETE FROM removed")
            connection.execute("INSERT INTO words (words) VALUES ('optimize')")
        self._catalogue.vacuum()

    def verify(self, progress: Progress = no_progress) -> list[str]:
        """Return everything that is not as it was written, a line each, as ``BaseZoo.verify``."""
        with self._catalogue.reading() as connection:
            return list(find_problems(connection, self._catalogue, progress))

    def rebuild(self, engine: str | None = None) -> list[str]:
        """Recompute words, tags and the engine, and remove damaged models, as ``BaseZoo.rebuild``."""
        with self._catalogue.changing() as (connection, generation):
            removed = repair(connection, self._catalogue, generation)
        self._index.reset()
        self.save_engine(engine)
        return removed
