"""The positions of one committed state in memory, as segments that later commits add to.

A segment never changes. New positions become a new segment, and the last two are merged while the older is less than
twice as large, so that a commit costs about as much as it adds, whatever the size of the zoo (O'Neil and others, The
Log-Structured Merge-Tree, 1996).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from sqlite3 import Connection
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loradex.index.candidates import candidates_for
from loradex.index.errors import RESTORE, ZooDamaged
from loradex.index.filters import Filter
from loradex.index.model import State
from loradex.index.sqlite.commits import read_changes
from loradex.index.sqlite.engine import AUTO, Engine, ExactEngine, Mask, Rows, concatenate, engine_for
from loradex.index.sqlite.slots import Slots, keys_of
from loradex.index.vectors import Vector, exact_scores, largest_factor

BISECT_FACTOR: Final = 16  # a binary search for each slot is faster than a scan below one slot in 16
EXACT_BELOW: Final = 2_000  # new positions are scanned exactly beside any engine until a merge adds them to it

FetchRows = Callable[[Slots], Vector]  # reads the ``scored_rows`` (n, dim + 1) of slots (n,) from the catalogue


class Matches(NamedTuple):
    """The best models of a search: slots (n,) of their best positions, and scores (n,), best first."""

    slots: Slots
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """An engine, the ascending slots (n,) of its rows, and a mask of the rows still in the zoo, None for all."""

    engine: Engine
    slots: Slots
    alive: Mask | None = None

    @property
    def live_count(self) -> int:
        """The number of rows that are in the zoo."""
        return len(self.slots) if self.alive is None else int(np.count_nonzero(self.alive))

    @cached_property
    def rows_per_model(self) -> float:
        """The mean number of rows of a model, which has a row for each kind of evidence."""
        return len(self.slots) / (1 + np.count_nonzero(np.diff(keys_of(self.slots)))) if len(self.slots) else 1.0

    def live_slots(self) -> Slots:
        """Return the slots of the rows that are in the zoo."""
        return self.slots if self.alive is None else self.slots[self.alive]

    def rows_of(self, slots: Slots) -> Rows:
        """Return the rows of those slots that it has."""
        if len(slots) * BISECT_FACTOR > len(self.slots):
            return np.flatnonzero(np.isin(self.slots, slots, assume_unique=True))
        places = np.searchsorted(self.slots, slots)
        inside = places < len(self.slots)
        return places[inside][self.slots[places[inside]] == slots[inside]]

    def without(self, slots: Slots) -> "Segment":
        """Return the segment after some slots were removed."""
        removed = self.rows_of(slots)
        if not len(removed):
            return self
        alive = np.ones(len(self.slots), np.bool_) if self.alive is None else self.alive.copy()
        alive[removed] = False
        return replace(self, alive=alive)

    def mask_of(self, allowed: Slots) -> Mask:
        """Return the mask of the rows that are allowed and in the zoo."""
        mask = np.zeros(len(self.slots), np.bool_)
        mask[self.rows_of(allowed)] = True
        return mask if self.alive is None else mask & self.alive

    def search(self, queries: Vector, k: int, mask: Mask | None, fetch: FetchRows) -> list[Matches]:
        """Return the ``k`` best models by the rows of a mask for each query of ``scored_queries`` (q, dim + 1).

        Those that tie with the last are among them.
        """
        mask = self.alive if mask is None else mask
        n_allowed = len(self.slots) if mask is None else int(np.count_nonzero(mask))
        n_candidates = candidates_for(ceil(min(k, n_allowed) * self.rows_per_model))
        if n_candidates >= n_allowed:
            allowed = np.arange(len(self.slots)) if mask is None else np.flatnonzero(mask)
            return [self._rescore(query, allowed, k, fetch) for query in queries]
        candidates = zip(queries, *self.engine.candidates(queries, n_candidates, mask), strict=True)
        return [self._best(query, scores, rows, mask, n_allowed, k, fetch) for query, scores, rows in candidates]

    def _best(
        self, query: Vector, scores: Vector, rows: Rows, mask: Mask | None, n_allowed: int, k: int, fetch: FetchRows
    ) -> Matches:
        """Return the best of some candidates; take more until no other row can be better, if errors are bounded."""
        error = self.engine.score_error
        error = None if error is None else error * largest_factor(query)
        while True:
            matches = self._rescore(query, rows[rows >= 0], k, fetch)
            if len(rows) >= n_allowed or (
                len(matches.slots) >= k and (error is None or matches.scores[-1] > scores[-1] + error)
            ):
                return matches
            (scores,), (rows,) = self.engine.candidates(query[None], min(4 * len(rows), n_allowed), mask)

    def _rescore(self, query: Vector, rows: Rows, k: int, fetch: FetchRows) -> Matches:
        """Return the ``k`` best models by some rows, and those that tie with the last, by scores in float64.

        FAISS may score equal vectors differently, by their place in a block; computed one by one, a score depends on
        its vector only.
        """
        slots, engine = self.slots[rows], self.engine
        vectors = engine.arrays()["vectors"][rows] if isinstance(engine, ExactEngine) else fetch(slots)
        return best_models(slots, exact_scores(vectors, query), k)


def best_models(slots: Slots, scores: NDArray[np.float64], k: int) -> Matches:
    """Return the ``k`` best models by slots (n,) with scores (n,), and those that tie with the last, best first.

    A model's slot is that of its best score, of equal ones that of the weightiest evidence.
    """
    order = np.lexsort((slots, -scores))
    _, firsts = np.unique(keys_of(slots[order]), return_index=True)
    order = order[np.sort(firsts)]
    order = order[scores[order] >= scores[order[k - 1]]] if len(order) > k else order
    return Matches(slots[order], scores[order])


def merge_segments(segments: Sequence[Segment], engine_kind: str) -> Segment:
    """Merge the live rows of segments into one."""
    slots = np.concatenate([segment.live_slots() for segment in segments])
    approximate = [type(segment.engine) for segment in segments if not isinstance(segment.engine, ExactEngine)]
    engine_class = approximate[0] if approximate else engine_for(len(slots), engine_kind)
    engine = concatenate(engine_class, [(segment.engine, segment.alive) for segment in segments])  # type: ignore[arg-type]
    order = np.argsort(slots, kind="stable")
    if np.array_equal(order, np.arange(len(slots))):
        return Segment(engine, slots)
    return Segment(concatenate(engine_class, [(engine, order)]), slots[order])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Snapshot:
    """The positions of one state.

    Attributes:
        engine_kind: the kind of engine that new segments get.
        filter_masks: the masks of recent filters, one for each segment.
    """

    state: State
    dim: int
    segments: tuple[Segment, ...] = ()
    engine_kind: str = AUTO
    filter_masks: dict[Filter, tuple[Mask, ...]] = field(default_factory=dict, compare=False)

    @classmethod
    def empty(cls, dim: int, engine_kind: str = AUTO) -> "Snapshot":
        """Return a snapshot without positions, of no state that a catalogue has."""
        return cls(State(-1, b""), dim, engine_kind=engine_kind)

    @property
    def live_count(self) -> int:
        """The number of positions."""
        return sum(segment.live_count for segment in self.segments)

    def masks_of(self, allowed: Slots) -> tuple[Mask, ...]:
        """Return the mask of each segment for ascending slots."""
        return tuple(segment.mask_of(allowed) for segment in self.segments)

    def search(self, queries: Vector, k: int, masks: Sequence[Mask | None] | None, fetch: FetchRows) -> list[Matches]:
        """Return the ``k`` best models for each query of ``scored_queries`` (q, dim + 1), best first.

        Those that tie with the last are among them. ``masks`` are the rows of each segment to search; None for all.
        """
        if k < 1 or not self.segments:
            return [Matches(np.empty(0, np.int64), np.empty(0)) for _ in queries]
        parts = zip(self.segments, masks or [None] * len(self.segments), strict=True)
        matches = [segment.search(queries, k, mask, fetch) for segment, mask in parts]
        return [merge_matches(of_query, k) for of_query in zip(*matches, strict=True)]

    def with_changes(self, state: State, removed: Slots, slots: Slots, rows: Vector) -> "Snapshot":
        """Return the snapshot of a later state: without removed slots, with ``scored_rows`` of ascending slots."""
        changed = np.union1d(removed, slots)
        segments = [segment.without(changed) for segment in self.segments] if len(changed) else list(self.segments)
        if len(slots):
            exact = bool(self.segments) and len(slots) < EXACT_BELOW
            engine_class = ExactEngine if exact else engine_for(len(slots), self.engine_kind)
            segments.append(Segment(engine_class.from_vectors(rows), slots))
        segments = [segment for segment in segments if segment.live_count]
        while len(segments) > 1 and segments[-2].live_count < 2 * segments[-1].live_count:
            segments[-2:] = [merge_segments(segments[-2:], self.engine_kind)]
        segments = [
            merge_segments([segment], self.engine_kind) if 2 * segment.live_count < len(segment.slots) else segment
            for segment in segments
        ]
        return Snapshot(state, self.dim, tuple(segments), self.engine_kind)

    def merged(self) -> "Snapshot":
        """Return the same state in one segment, without removed rows."""
        if len(self.segments) < 2 and all(segment.alive is None for segment in self.segments):
            return self
        return Snapshot(self.state, self.dim, (merge_segments(self.segments, self.engine_kind),), self.engine_kind)


def merge_matches(parts: Sequence[Matches], k: int) -> Matches:
    """Return the ``k`` best models of the matches of several segments, and those that tie with the last."""
    if len(parts) == 1:
        return parts[0]
    slots, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return best_models(slots, scores, k)


def updated_snapshot(connection: Connection, snapshot: Snapshot, state: State, path: Path) -> Snapshot:
    """Return the snapshot of the state that a transaction sees, from that of a past state or an empty one.

    Raises:
        ZooDamaged: a position is missing, or is not as it was written.
    """
    changes = read_changes(connection, snapshot.state.generation, snapshot.dim, path)
    updated = snapshot.with_changes(state, *changes)
    expected = connection.execute("SELECT vectors FROM zoo").fetchone()[0]
    if updated.live_count != expected:
        raise ZooDamaged(f"{path}: expected {expected} positions, found {updated.live_count}; {RESTORE}")
    return updated
