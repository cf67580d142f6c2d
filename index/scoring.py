"""Models as hits, by the exact scores of positions that were read already."""

import numpy as np

from loradex.index.evidence import Positions
from loradex.index.model import Hit, Model
from loradex.index.vectors import Vector, exact_scores, scored_rows


def hit_of(model: Model, positions: Positions, query: Vector) -> Hit:
    """Return a model as a hit of a query (dim + 1,) of ``vectors.scored_queries``.

    Its positions are those that count, at least one, the weightiest first.
    """
    places = list(positions.values())
    vectors = np.stack([place.vector for place in places])
    rows = scored_rows(vectors, [place.scale for place in places], [place.bias for place in places])
    scores = dict(zip(positions, exact_scores(rows, query).tolist(), strict=True))
    best = max(scores, key=lambda kind: scores[kind])  # of equal ones the weightiest
    return Hit(model, scores[best], best, scores, positions)
