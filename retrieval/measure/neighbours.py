"""What nearest models say of a model: classification and one-class detection, as ProbeX's paper measures representations (section 5.3).

Both compare models with labelled references by distance; of unit vectors that is the order of cosines.
"""

import numpy as np
from numpy.typing import NDArray

from loradex.retrieval.measure.metrics import Floats, Ints, Metric, auroc, summarise

NEIGHBOURS = 2  # of the one-class score, as in the official code


def nearest_label(queries: Floats, references: Floats, query_concepts: Ints, reference_concepts: Ints) -> Metric:
    """How often the nearest reference is of the query's concept."""
    found = reference_concepts[distances(queries, references).argmin(1)]
    chance = float(np.mean([(reference_concepts == concept).mean() for concept in query_concepts]))
    return summarise((found == query_concepts).astype(np.float64), query_concepts, chance)


def one_class(queries: Floats, references: Floats, query_concepts: Ints, reference_concepts: Ints) -> Metric:
    """The mean over concepts of the AUROC of telling its models from all others by the mean distance to the concept's nearest references."""
    between = distances(queries, references)
    concepts = np.intersect1d(query_concepts, reference_concepts)
    areas = []
    for concept in concepts:
        own = np.sort(between[:, reference_concepts == concept], 1)[:, :NEIGHBOURS].mean(1)
        areas.append(auroc(-own[query_concepts == concept], -own[query_concepts != concept]))
    return summarise(np.array(areas), concepts, 0.5)


def distances(queries: Floats, references: Floats) -> NDArray[np.float64]:
    """Euclidean distances (queries, references)."""
    squares = (queries**2).sum(1)[:, None] + (references**2).sum(1) - 2 * queries @ references.T
    return np.sqrt(np.maximum(squares, 0))
