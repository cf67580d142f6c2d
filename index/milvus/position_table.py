"""The collection of positions: one row for each kind of evidence of a model, which searches go through."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from loradex.index.candidates import approximate_candidates
from loradex.index.evidence import Evidence
from loradex.index.filters import Filter
from loradex.index.milvus.expressions import ids_expression, position_expression
from loradex.index.milvus.rows import FILTERED, Row, is_id
from loradex.index.milvus.table import MAX_ROWS, Table, batches
from loradex.index.vectors import Vector, exact_scores, largest_factor

POSITION_FIELDS: Final = ("id", "model", "kind", "vector", *FILTERED)


class PositionTable(Table):
    """The rows of positions."""

    def by_model(self, ids: Sequence[str]) -> list[Row]:
        """Return the complete rows of some models."""
        return [
            row
            for batch in batches([id for id in ids if is_id(id)])
            for row in self.scan(ids_expression(batch, "model"), POSITION_FIELDS, total=len(batch))
        ]

    def model_ids(self) -> set[str]:
        """Return the ids of all models that have a row."""
        return {row["model"] for row in self.scan("", ("model",))}

    def nearest(self, query: Vector, k: int, where: Filter, *, exact: bool) -> list[str]:
        """Return the ids of the ``k`` best models for a query (dim + 1,) as of ``vectors.scored_queries``.

        A model's score is the best of its rows of the kinds that the filter names; ties are in order of id. ``exact``
        says that Milvus's index scores all rows. Then candidates are taken until no other model can be better than the
        last one, or tie with it.
        """

        def candidates(kinds: Sequence[Evidence]) -> list[Row]:
            n_rows = k * len(kinds) if exact else approximate_candidates(k)
            condition = position_expression(where, kinds)
            return self.search(query.tolist(), "vector", n_rows, condition, ("model", "vector"), is_enough)

        def is_enough(rows: Sequence[Row]) -> bool:
            best = best_scores(rows, query)
            return len(best) >= k and bool(
                np.sort([*best.values()])[-k] > rows[-1]["distance"] + rounding_error(rows, query)
            )

        rows = candidates(where.kinds)
        best = best_scores(rows, query)
        if len(rows) == MAX_ROWS and len(best) < k:  # several rows a model left no room for others
            best = best_scores([row for kind in where.kinds for row in candidates([kind])], query)
        return sorted(best, key=lambda id: (-best[id], id))[:k]


def matrix(rows: Sequence[Row]) -> Vector:
    """Return the vectors (n, dim + 1) of some rows."""
    return np.array([row["vector"] for row in rows], np.float32)


def best_scores(rows: Sequence[Row], query: Vector) -> dict[str, float]:
    """Return the best score of each model among some rows, by its id."""
    best: dict[str, float] = {}
    if rows:
        for row, score in zip(rows, exact_scores(matrix(rows), query).tolist(), strict=True):
            best[row["model"]] = max(score, best.get(row["model"], score))
    return best


def rounding_error(rows: Sequence[Row], query: Vector) -> float:
    """Return a bound of the error of a query's scores in float32, summed in any order, of rows no larger than these."""
    vectors = matrix(rows)
    largest = (np.linalg.norm(vectors[:, :-1], axis=1) + np.abs(vectors[:, -1])).max()
    return float(vectors.shape[1] * 2.0**-23 * largest * largest_factor(query))
