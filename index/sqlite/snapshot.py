"""What a search reads besides the catalogue: the vectors of one committed state in segments, brought up to date by what later commits changed.

A segment never changes. New vectors make a new one, and two are joined when the older is less than twice as large, so that a commit costs
about as much as it holds, whatever the zoo holds (O'Neil and others, The Log-Structured Merge-Tree, 1996).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from sqlite3 import Connection, DatabaseError
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from loradex.index.errors import RESTORE, ZooDamaged
from loradex.index.sqlite.engine import AUTO, Engine, Exact, Mask, Rows, engine_for, joined
from loradex.index.sqlite.rows import sound
from loradex.index.vectors import Vector

SPARE: Final = 16  # candidates beyond k, so that most exact searches take one pass, and others miss few
FEW: Final = 16  # keys a key looked for, from which looking for each is faster than going through all
FEW_NEW: Final = 2_000  # new vectors that are scanned exactly beside any engine, until they are joined to it
PAGE: Final = 4096  # rows read at a time

Keys = NDArray[np.int64]
Fetch = Callable[[Keys], Vector]  # vectors (n, dim) of keys (n,), out of the catalogue
Found = tuple[Keys, NDArray[np.float64], Vector]  # keys (n,), cosines (n,) and vectors (n, dim)


@dataclass(frozen=True, slots=True)
class State:
    """One committed state of a catalogue; ``token`` tells it from another that has its number."""

    generation: int
    token: bytes

    @classmethod
    def read(cls, connection: Connection) -> Self:
        """The state that a transaction sees.

        Raises:
            sqlite3.DatabaseError: there is none.
        """
        row = connection.execute("SELECT generation, token FROM commits ORDER BY generation DESC LIMIT 1").fetchone()
        if row is None or type(row[0]) is not int:
            raise DatabaseError(f"{row!r} for the last commit")
        return cls(*row)

    def known_to(self, connection: Connection) -> bool:
        """Whether the catalogue went through this state and remembers what was changed since."""
        return (
            connection.execute(
                "SELECT 1 FROM commits WHERE (generation, token) = (?, ?)", (self.generation, self.token)
            ).fetchone()
            is not None
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """An engine, the ascending keys (n,) of its rows, and which of them are still in the zoo."""

    engine: Engine
    keys: Keys
    alive: Mask | None = None  # all, where there is none

    @property
    def live(self) -> int:
        """How many rows are in the zoo."""
        return len(self.keys) if self.alive is None else int(np.count_nonzero(self.alive))

    def rows(self, keys: Keys) -> Rows:
        """The rows of those keys that it has."""
        if len(keys) * FEW > len(self.keys):
            return np.flatnonzero(np.isin(self.keys, keys, assume_unique=True))
        places = np.searchsorted(self.keys, keys)
        inside = places < len(self.keys)
        return places[inside][self.keys[places[inside]] == keys[inside]]

    def without(self, keys: Keys) -> "Segment":
        """The segment after some keys were taken out."""
        gone = self.rows(keys)
        if not len(gone):
            return self
        alive = np.ones(len(self.keys), np.bool_) if self.alive is None else self.alive.copy()
        alive[gone] = False
        return replace(self, alive=alive)

    def mask(self, allowed: Keys) -> Mask:
        """Its rows that are in the zoo and allowed."""
        mask = np.zeros(len(self.keys), np.bool_)
        mask[self.rows(allowed)] = True
        return mask if self.alive is None else mask & self.alive

    def search(self, queries: Vector, k: int, mask: Mask | None, fetch: Fetch) -> list[Found]:
        """The ``k`` best of each query (q, dim) among the rows of a mask, and those that tie with the last, by cosines in float64."""
        mask = self.alive if mask is None else mask
        among = len(self.keys) if mask is None else int(np.count_nonzero(mask))
        wanted = k + SPARE
        if wanted >= among:
            everything = np.arange(len(self.keys)) if mask is None else np.flatnonzero(mask)
            return [self._best(query, everything, k, fetch) for query in queries]
        scores, rows = self.engine.candidates(queries, wanted, mask)
        return [self._settle(*each, mask, among, k, fetch) for each in zip(queries, scores, rows, strict=True)]

    def _settle(
        self, query: Vector, scores: Vector, rows: Rows, mask: Mask | None, among: int, k: int, fetch: Fetch
    ) -> Found:
        """The best of some candidates, once there are enough of them that none outside can be better, where the engine can tell."""
        while True:
            keys, exact, vectors = self._best(query, rows[rows >= 0], k, fetch)
            if self.engine.slack is None or len(rows) >= among or exact[-1] > scores[-1] + self.engine.slack:
                return keys, exact, vectors
            more = min(4 * len(rows), among)
            (scores,), (rows,) = self.engine.candidates(query[None], more, mask)

    def _best(self, query: Vector, rows: Rows, k: int, fetch: Fetch) -> Found:
        """The ``k`` best of some rows, and those that tie with the last.

        FAISS may score equal vectors unequally, by their place in a block; each alone in float64, the answer depends on vectors and keys only.
        """
        vectors = self.vectors(rows, fetch)
        exact = (vectors.astype(np.float64) * query).sum(axis=1)
        order = best_rows(exact, k)
        return self.keys[rows[order]], exact[order], vectors[order]

    def vectors(self, rows: Rows, fetch: Fetch) -> Vector:
        """The vectors (n, dim) of some rows."""
        if isinstance(self.engine, Exact):
            return self.engine.arrays()["vectors"][rows]
        return fetch(self.keys[rows])


def join(segments: Sequence[Segment], wanted: str) -> Segment:
    """One segment of the living rows of several."""
    keys = np.concatenate(
        [segment.keys if segment.alive is None else segment.keys[segment.alive] for segment in segments]
    )
    coded = next((type(segment.engine) for segment in segments if not isinstance(segment.engine, Exact)), None)
    kind = coded or engine_for(len(keys), wanted)
    engine = joined(kind, [(segment.engine, segment.alive) for segment in segments])  # type: ignore[arg-type]
    order = np.argsort(keys, kind="stable")
    if np.array_equal(order, np.arange(len(keys))):
        return Segment(engine, keys)
    return Segment(joined(kind, [(engine, order)]), keys[order])  # type: ignore[arg-type, list-item]


@dataclass(frozen=True)
class Snapshot:
    """The vectors of one state."""

    state: State
    dim: int
    segments: tuple[Segment, ...] = ()
    wanted: str = AUTO
    masks: dict[object, tuple[Mask, ...]] = field(
        default_factory=dict, compare=False
    )  # by filter, remembered while the state lasts

    @property
    def live(self) -> int:
        """The number of vectors."""
        return sum(segment.live for segment in self.segments)

    def masks_of(self, allowed: Keys) -> tuple[Mask, ...]:
        """The rows of each segment that are among the allowed keys, ascending."""
        return tuple(segment.mask(allowed) for segment in self.segments)

    def search(self, queries: Vector, k: int, masks: Sequence[Mask | None] | None, fetch: Fetch) -> list[Found]:
        """The ``k`` best of each unit query (q, dim) among the rows of a mask a segment, and those that tie with the last; best first."""
        if k < 1 or not self.segments:
            return [(np.empty(0, np.int64), np.empty(0), np.empty((0, self.dim), np.float32)) for _ in queries]
        parts = zip(self.segments, masks or [None] * len(self.segments), strict=True)
        found = [segment.search(queries, k, mask, fetch) for segment, mask in parts]
        return [best_of([each[number] for each in found], k) for number in range(len(queries))]

    def with_changes(self, state: State, gone: Keys, keys: Keys, vectors: Vector) -> "Snapshot":
        """A later state: without some keys, and with the vectors (n, dim) of others, ascending."""
        changed = np.union1d(gone, keys)
        segments = [segment.without(changed) for segment in self.segments] if len(changed) else list(self.segments)
        if len(keys):
            few = bool(self.segments) and len(keys) < FEW_NEW
            segments.append(Segment((Exact if few else engine_for(len(keys), self.wanted)).of(vectors), keys))
        segments = [segment for segment in segments if segment.live]
        while len(segments) > 1 and segments[-2].live < 2 * segments[-1].live:
            segments[-2:] = [join(segments[-2:], self.wanted)]
        segments = [
            join([segment], self.wanted) if 2 * segment.live < len(segment.keys) else segment for segment in segments
        ]
        return Snapshot(state, self.dim, tuple(segments), self.wanted)

    def in_one(self) -> "Snapshot":
        """The same state in one segment, without rows that are gone."""
        if len(self.segments) < 2 and all(segment.alive is None for segment in self.segments):
            return self
        return Snapshot(self.state, self.dim, (join(self.segments, self.wanted),), self.wanted)


def best_of(parts: Sequence[Found], k: int) -> Found:
    """The ``k`` best of several answers, and those that tie with the last."""
    if len(parts) == 1:
        return parts[0]
    keys, exact, vectors = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = best_rows(exact, k)
    return keys[order], exact[order], vectors[order]


def best_rows(scores: NDArray[np.float64], k: int) -> Rows:
    """The rows of the ``k`` best scores (n,), and of those that tie with the last, best first."""
    order = np.argsort(-scores, kind="stable")
    return order[scores[order] >= scores[order[k - 1]]] if len(order) > k else order


def read_changes(connection: Connection, since: int, dim: int, path: Path) -> tuple[Keys, Keys, Vector]:
    """What was taken out, and keys and vectors of what came or changed, after a generation.

    Raises:
        ZooDamaged: a vector is not the one that was written.
    """
    gone = np.array(
        [
            key
            for (key,) in connection.execute(
                "SELECT DISTINCT key FROM removed WHERE generation > ? ORDER BY key", (since,)
            )
        ],
        np.int64,
    )
    condition, values = (
        ("", ()) if since < 0 else ("INDEXED BY vectors_by_generation WHERE generation > ?", (since,))
    )  # else SQLite goes by key, over all
    rows = connection.execute(f"SELECT key, vector, crc FROM vectors {condition} ORDER BY key", values)
    keys, blocks = [], []
    while page := rows.fetchmany(PAGE):
        keys += [row[0] for row in page]
        blocks.append(np.frombuffer(b"".join(sound(row, 4 * dim, path) for row in page), "<f4").reshape(-1, dim))
    vectors = np.concatenate(blocks, dtype=np.float32) if blocks else np.empty((0, dim), np.float32)
    return gone, np.array(keys, np.int64), vectors


def brought_up_to_date(connection: Connection, before: Snapshot, state: State, path: Path) -> Snapshot:
    """The snapshot of the state that a transaction sees, from one that the catalogue went through, or from an empty one.

    Raises:
        ZooDamaged: a vector is not the one that was written, or some are lost.
    """
    after = before.with_changes(state, *read_changes(connection, before.state.generation, before.dim, path))
    expected = connection.execute("SELECT vectors FROM zoo").fetchone()[0]
    if after.live != expected:
        raise ZooDamaged(f"{path}: expected {expected} vectors, found {after.live}; {RESTORE}")
    return after
