"""The vectors of one committed state in memory, as segments that later commits add to.

A segment never changes. New vectors become a new segment, and the last two are merged while the older is less than
twice as large, so that a commit costs about as much as it adds, whatever the size of the zoo (O'Neil and others, The
Log-Structured Merge-Tree, 1996).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from sqlite3 import Connection
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loradex.index.candidates import candidates_for
from loradex.index.errors import RESTORE, ZooDamaged
from loradex.index.filters import Filter
from loradex.index.model import State
from loradex.index.sqlite.commits import Keys, read_changes
from loradex.index.sqlite.engine import AUTO, Engine, ExactEngine, Mask, Rows, concatenate, engine_for
from loradex.index.vectors import Vector

BISECT_FACTOR: Final = 16  # a binary search for each key is faster than a scan below one key in 16
EXACT_BELOW: Final = 2_000  # new vectors are scanned exactly beside any engine until a merge adds them to it

FetchVectors = Callable[[Keys], Vector]  # reads the vectors (n, dim) of keys (n,) from the catalogue


class Matches(NamedTuple):
    """The best vectors of a search: keys (n,), cosines (n,) and vectors (n, dim), best first."""

    keys: Keys
    scores: NDArray[np.float64]
    vectors: Vector


@dataclass(frozen=True, slots=True)
class Segment:
    """An engine, the ascending keys (n,) of its rows, and a mask of the rows still in the zoo, None for all."""

    engine: Engine
    keys: Keys
    alive: Mask | None = None

    @property
    def live_count(self) -> int:
        """The number of rows that are in the zoo."""
        return len(self.keys) if self.alive is None else int(np.count_nonzero(self.alive))

    def live_keys(self) -> Keys:
        """Return the keys of the rows that are in the zoo."""
        return self.keys if self.alive is None else self.keys[self.alive]

    def rows_of(self, keys: Keys) -> Rows:
        """Return the rows of those keys that it has."""
        if len(keys) * BISECT_FACTOR > len(self.keys):
            return np.flatnonzero(np.isin(self.keys, keys, assume_unique=True))
        positions = np.searchsorted(self.keys, keys)
        inside = positions < len(self.keys)
        return positions[inside][self.keys[positions[inside]] == keys[inside]]

    def without(self, keys: Keys) -> "Segment":
        """Return the segment after some keys were removed."""
        removed = self.rows_of(keys)
        if not len(removed):
            return self
        alive = np.ones(len(self.keys), np.bool_) if self.alive is None else self.alive.copy()
        alive[removed] = False
        return replace(self, alive=alive)

    def mask_of(self, allowed: Keys) -> Mask:
        """Return the mask of the rows that are allowed and in the zoo."""
        mask = np.zeros(len(self.keys), np.bool_)
        mask[self.rows_of(allowed)] = True
        return mask if self.alive is None else mask & self.alive

    def search(self, queries: Vector, k: int, mask: Mask | None, fetch: FetchVectors) -> list[Matches]:
        """Return the ``k`` best rows of a mask for each unit query (q, dim), and those that tie with the last."""
        mask = self.alive if mask is None else mask
        n_allowed = len(self.keys) if mask is None else int(np.count_nonzero(mask))
        n_candidates = candidates_for(k)
        if n_candidates >= n_allowed:
            allowed = np.arange(len(self.keys)) if mask is None else np.flatnonzero(mask)
            return [self._rescore(query, allowed, k, fetch) for query in queries]
        candidates = zip(queries, *self.engine.candidates(queries, n_candidates, mask), strict=True)
        return [self._best(query, scores, rows, mask, n_allowed, k, fetch) for query, scores, rows in candidates]

    def _best(
        self, query: Vector, scores: Vector, rows: Rows, mask: Mask | None, n_allowed: int, k: int, fetch: FetchVectors
    ) -> Matches:
        """Return the best of some candidates; take more until no other row can be better, if errors are bounded."""
        error = self.engine.score_error
        while True:
            matches = self._rescore(query, rows[rows >= 0], k, fetch)
            if error is None or len(rows) >= n_allowed or matches.scores[-1] > scores[-1] + error:
                return matches
            (scores,), (rows,) = self.engine.candidates(query[None], min(4 * len(rows), n_allowed), mask)

    def _rescore(self, query: Vector, rows: Rows, k: int, fetch: FetchVectors) -> Matches:
        """Return the ``k`` best of some rows, and those that tie with the last, by their cosines in float64.

        FAISS may score equal vectors differently, by their position in a block; computed one by one, a cosine depends
        on its vector only.
        """
        vectors = self.vectors(rows, fetch)
        scores = (vectors.astype(np.float64) * query).sum(axis=1)
        order = top_rows(scores, k)
        return Matches(self.keys[rows[order]], scores[order], vectors[order])

    def vectors(self, rows: Rows, fetch: FetchVectors) -> Vector:
        """Return the vectors (n, dim) of some rows."""
        if isinstance(self.engine, ExactEngine):
            return self.engine.arrays()["vectors"][rows]
        return fetch(self.keys[rows])


def merge_segments(segments: Sequence[Segment], engine_kind: str) -> Segment:
    """Merge the live rows of segments into one."""
    keys = np.concatenate([segment.live_keys() for segment in segments])
    approximate = [type(segment.engine) for segment in segments if not isinstance(segment.engine, ExactEngine)]
    engine_class = approximate[0] if approximate else engine_for(len(keys), engine_kind)
    engine = concatenate(engine_class, [(segment.engine, segment.alive) for segment in segments])  # type: ignore[arg-type]
    order = np.argsort(keys, kind="stable")
    if np.array_equal(order, np.arange(len(keys))):
        return Segment(engine, keys)
    return Segment(concatenate(engine_class, [(engine, order)]), keys[order])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Snapshot:
    """The vectors of one state.

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
        """Return a snapshot without vectors, of no state that a catalogue has."""
        return cls(State(-1, b""), dim, engine_kind=engine_kind)

    @property
    def live_count(self) -> int:
        """The number of vectors."""
        return sum(segment.live_count for segment in self.segments)

    def masks_of(self, allowed: Keys) -> tuple[Mask, ...]:
        """Return the mask of each segment for ascending keys."""
        return tuple(segment.mask_of(allowed) for segment in self.segments)

    def search(
        self, queries: Vector, k: int, masks: Sequence[Mask | None] | None, fetch: FetchVectors
    ) -> list[Matches]:
        """Return the ``k`` best vectors for each unit query (q, dim), and those that tie with the last, best first.

        ``masks`` are the rows of each segment to search; None for all.
        """
        if k < 1 or not self.segments:
            return [Matches(np.empty(0, np.int64), np.empty(0), np.empty((0, self.dim), np.float32)) for _ in queries]
        parts = zip(self.segments, masks or [None] * len(self.segments), strict=True)
        matches = [segment.search(queries, k, mask, fetch) for segment, mask in parts]
        return [merge_matches(of_query, k) for of_query in zip(*matches, strict=True)]

    def with_changes(self, state: State, removed: Keys, keys: Keys, vectors: Vector) -> "Snapshot":
        """Return the snapshot of a later state: without removed keys, with vectors (n, dim) of ascending keys."""
        changed = np.union1d(removed, keys)
        segments = [segment.without(changed) for segment in self.segments] if len(changed) else list(self.segments)
        if len(keys):
            exact = bool(self.segments) and len(keys) < EXACT_BELOW
            engine_class = ExactEngine if exact else engine_for(len(keys), self.engine_kind)
            segments.append(Segment(engine_class.from_vectors(vectors), keys))
        segments = [segment for segment in segments if segment.live_count]
        while len(segments) > 1 and segments[-2].live_count < 2 * segments[-1].live_count:
            segments[-2:] = [merge_segments(segments[-2:], self.engine_kind)]
        segments = [
            merge_segments([segment], self.engine_kind) if 2 * segment.live_count < len(segment.keys) else segment
            for segment in segments
        ]
        return Snapshot(state, self.dim, tuple(segments), self.engine_kind)

    def merged(self) -> "Snapshot":
        """Return the same state in one segment, without removed rows."""
        if len(self.segments) < 2 and all(segment.alive is None for segment in self.segments):
            return self
        return Snapshot(self.state, self.dim, (merge_segments(self.segments, self.engine_kind),), self.engine_kind)


def merge_matches(parts: Sequence[Matches], k: int) -> Matches:
    """Return the ``k`` best of the matches of several segments, and those that tie with the last."""
    if len(parts) == 1:
        return parts[0]
    keys, scores, vectors = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = top_rows(scores, k)
    return Matches(keys[order], scores[order], vectors[order])


def top_rows(scores: NDArray[np.float64], k: int) -> Rows:
    """Return the rows of the ``k`` best scores (n,), and of those that tie with the last, best first."""
    order = np.argsort(-scores, kind="stable")
    return order[scores[order] >= scores[order[k - 1]]] if len(order) > k else order


def updated_snapshot(connection: Connection, snapshot: Snapshot, state: State, path: Path) -> Snapshot:
    """Return the snapshot of the state that a transaction sees, from that of a past state or an empty one.

    Raises:
        ZooDamaged: a vector is missing, or is not as it was written.
    """
    changes = read_changes(connection, snapshot.state.generation, snapshot.dim, path)
    updated = snapshot.with_changes(state, *changes)
    expected = connection.execute("SELECT vectors FROM zoo").fetchone()[0]
    if updated.live_count != expected:
        raise ZooDamaged(f"{path}: expected {expected} vectors, found {updated.live_count}; {RESTORE}")
    return updated
