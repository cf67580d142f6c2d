"""Exact search over one committed state of a zoo, by FAISS."""

from collections.abc import Sequence
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from index.vectors import Vector

SPARE: Final = 16  # candidates beyond k, so that most searches take one pass
Found = list[tuple[str, float]]  # id and cosine, best first


class Engine:
    """Unit vectors and their ids; it never changes, so any number of threads may search it at once.

    FAISS picks candidates in float32, where equal vectors may score unequal by their place in a block. So candidates are scored again
    in float64, each alone, and taken only when no other can reach them: the answer depends on the vectors and ids, not on the machine.
    """

    def __init__(self, generation: int, ids: Sequence[str], vectors: Vector) -> None:
        """Index unit vectors (n, dim) of ids (n,) that are in order."""
        self.generation, self._ids = generation, ids
        dim = vectors.shape[1]
        self._index: Any = faiss.IndexFlatIP(dim)
        self._index.add(vectors)
        self._slack = dim * 2.0**-24  # the most that float32 can be off in the inner product of two unit vectors

    def search(self, queries: Vector, k: int) -> list[Found]:
        """The ``k`` best of each unit query (q, dim) by cosine, ties in order of id."""
        if not len(queries) or not self._ids or k < 1:
            return [[] for _ in queries]
        taken = min(k + SPARE, len(self._ids))
        scores, rows = self._index.search(queries, taken)
        return [self._settle(*each, k) for each in zip(queries, scores, rows, strict=True)]

    def _settle(self, query: Vector, scores: Vector, rows: NDArray[np.int64], k: int) -> Found:
        """The best of some candidates, once there are enough of them that none outside can be better."""
        while True:
            exact = (self._index.reconstruct_batch(rows).astype(np.float64) * query).sum(axis=1)
            best = np.lexsort((rows, -exact))[:k]  # rows are in order of id
            if len(rows) == len(self._ids) or exact[best[-1]] > scores[-1] + self._slack:
                return [(self._ids[rows[i]], float(exact[i])) for i in best]
            more = min(4 * len(rows), len(self._ids))
            (scores,), (rows,) = self._index.search(query[None], more)
