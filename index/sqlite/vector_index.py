"""The vector index of a zoo in a folder: a snapshot in memory, and a saved engine on the disk."""

from contextlib import suppress
from sqlite3 import Connection
from threading import Lock
from typing import Final

from loradex.index.errors import ZooDamaged
from loradex.index.filters import Filter
from loradex.index.model import Hit, State
from loradex.index.sqlite.catalogue import Catalogue
from loradex.index.sqlite.commits import is_past_state, read_state, rows_to_search
from loradex.index.sqlite.conditions import filter_condition
from loradex.index.sqlite.engine import AUTO, ENGINES, Mask
from loradex.index.sqlite.hits import best_hits
from loradex.index.sqlite.reads import read_matching_keys, read_slots
from loradex.index.sqlite.saved_engines import delete_engines, load_snapshot, save_engine, saved_engines
from loradex.index.sqlite.slots import Slots, slots_of
from loradex.index.sqlite.snapshot import Snapshot, updated_snapshot
from loradex.index.vectors import Vector, scored_queries

SAVE_FROM: Final = 20_000  # positions, from which loading a saved engine is faster than reading the catalogue
STALE_SHARE: Final = 0.05  # of the positions added since an engine was saved, from which it is saved again
MAX_FILTERS: Final = 32  # whose masks are kept while no model changes


class VectorIndex:
    """Searches the positions of a catalogue.

    The catalogue alone holds the truth. Before each search the snapshot is brought up to the state that the transaction
    sees, whichever process committed it.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        """Load nothing yet: the first search does."""
        self._catalogue = catalogue
        self._updating = Lock()
        self.snapshot = Snapshot.empty(catalogue.dim)

    def search(self, connection: Connection, queries: Vector, k: int, where: Filter) -> list[list[Hit]]:
        """Return the hits of each query (q, dim), a unit vector times its scale.

        Raises:
            BadQuery: the filter is invalid.
            ZooDamaged: a row that is needed is not as it was written.
        """
        snapshot = self._current_snapshot(connection)
        masks = self._masks(connection, snapshot, where) if where else None
        rows, path = scored_queries(queries), self._catalogue.path

        def fetch(slots: Slots) -> Vector:
            return rows_to_search(read_slots(connection, path, slots), self._catalogue.dim, path)

        found = zip(rows, snapshot.search(rows, k, masks, fetch), strict=True)
        return [best_hits(connection, path, query, matches, k, where.kinds) for query, matches in found]

    def reset(self) -> None:
        """Drop the snapshot and the saved engines.

        Raises:
            ZooReadOnly: the zoo was opened for reading only.
            DiskRefused: the disk refused it.
        """
        self.snapshot = Snapshot.empty(self._catalogue.dim)
        with self._catalogue.writing():
            delete_engines(self._catalogue.folder)

    def save(self, connection: Connection, *, always: bool) -> bool:
        """Save the engine, unless it is small or the saved one is recent; return whether it was saved.

        With ``always`` it is saved in any case, if the zoo has positions.

        Raises:
            DiskRefused: the disk refused it.
            ZooDamaged: a position is missing, or is not as it was written.
        """
        (count,) = connection.execute("SELECT vectors FROM zoo").fetchone()
        if not count or (not always and (count < SAVE_FROM or not self._is_saved_engine_stale(connection, count))):
            return False
        snapshot = self._current_snapshot(connection).merged()
        with self._updating:
            self.snapshot = snapshot
        save_engine(self._catalogue.folder, snapshot)
        return True

    def _is_saved_engine_stale(self, connection: Connection, count: int) -> bool:
        """Whether no saved engine has nearly all of the ``count`` positions that a transaction sees."""
        usable = (saved for saved in saved_engines(self._catalogue.folder) if is_past_state(connection, saved.state))
        saved = next(usable, None)
        since = -1 if saved is None else saved.state.generation
        stale = max(1, int(STALE_SHARE * count))
        statement = "SELECT count(*) FROM (SELECT 1 FROM vectors WHERE generation > ? LIMIT ?)"
        return bool(connection.execute(statement, (since, stale)).fetchone()[0] >= stale)

    def _masks(self, connection: Connection, snapshot: Snapshot, where: Filter) -> tuple[Mask, ...]:
        """Return the rows of each segment that pass a filter."""
        masks = snapshot.filter_masks.get(where)
        if masks is None:
            keys = read_matching_keys(connection, filter_condition(where))
            masks = snapshot.masks_of(slots_of(keys, where.kinds))
            if len(snapshot.filter_masks) >= MAX_FILTERS:
                snapshot.filter_masks.clear()
            snapshot.filter_masks[where] = masks
        return masks

    def _current_snapshot(self, connection: Connection) -> Snapshot:
        """Return the snapshot of the state that a transaction sees, updated if another state was committed."""
        state, snapshot = read_state(connection), self.snapshot
        if snapshot.state == state:
            return snapshot
        with self._updating:
            snapshot = self.snapshot
            if snapshot.state != state:  # else another thread updated it in the meantime
                snapshot = self.snapshot = self._updated(connection, snapshot, state)
            return snapshot

    def _updated(self, connection: Connection, snapshot: Snapshot, state: State) -> Snapshot:
        """Return the snapshot of a state, from that of a past state, a saved engine, or all positions."""
        path, dim = self._catalogue.path, self._catalogue.dim
        if is_past_state(connection, snapshot.state):
            return updated_snapshot(connection, snapshot, state, path)
        kind = str(connection.execute("SELECT engine FROM zoo").fetchone()[0])
        kind = kind if kind in ENGINES else AUTO
        if saved := load_snapshot(self._catalogue.folder, connection, dim, kind):
            with suppress(ZooDamaged):  # the saved engine does not fit the catalogue
                return updated_snapshot(connection, saved, state, path)
        return updated_snapshot(connection, Snapshot.empty(dim, kind), state, path)
