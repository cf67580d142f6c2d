"""Models as hits, by the exact scores of positions that were read already."""

from collections.abc import Sequence

import numpy as np

from loradex.index.evidence import Positions
from loradex.index.model import Hit, Model
from loradex.index.vectors import Vector, exact_scores, scored_rows


def hits_of(placed: Sequence[tuple[Model, Positions]], query: Vector) -> list[Hit]:
    """Return models as hits of a query (dim + 1,) of ``vectors.scored_queries``, in their order.

    Each comes with its positions that count, at least one, the weightiest first.
    """
    places = [place for _, positions in placed for place in positions.values()]
    if not places:
        return []
    vectors = np.stack([place.vector for place in places])
    rows = scored_rows(vectors, [place.scale for place in places], [place.bias for place in places])
    scores, hits = iter(exact_scores(rows, query).tolist()), list[Hit]()
    for model, positions in placed:
        own_scores = {kind: next(scores) for kind in positions}
        best = max(own_scores, key=own_scores.__getitem__)  # of equal ones the weightiest
        hits.append(Hit(model, own_scores[best], best, own_scores, positions))
    return hits
