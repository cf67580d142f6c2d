"""Nearest-neighbour metrics: classification and one-class detection, as in ProbeX's paper (section 5.3).

Both compare models with labelled references by Euclidean distance; for unit vectors that is the order of cosines.
"""

import numpy as np
from numpy.typing import NDArray

from loradex.retrieval.measure.metrics import Floats, Ints, Metric, auroc, bootstrap_mean

NEIGHBOURS = 2  # of the one-class score, as in the official code


def nearest_label_accuracy(
    queries: Floats, references: Floats, query_concepts: Ints, reference_concepts: Ints
) -> Metric:
    """How often the nearest reference is of the query's concept.

    Args:
        queries: (queries, dim).
        references: (references, dim).
        query_concepts: (queries,).
        reference_concepts: (references,).
    """
    nearest = reference_concepts[distances(queries, references).argmin(1)]
    chance = float(np.mean([(reference_concepts == concept).mean() for concept in query_concepts]))
    return bootstrap_mean((nearest == query_concepts).astype(np.float64), query_concepts, chance)


def one_class_auroc(queries: Floats, references: Floats, query_concepts: Ints, reference_concepts: Ints) -> Metric:
    """Mean over concepts of the AUROC of separating a concept's models from all others.

    The score is the mean distance to the concept's ``NEIGHBOURS`` nearest references. Arguments as for
    ``nearest_label_accuracy``.
    """
    between = distances(queries, references)
    concepts = np.intersect1d(query_concepts, reference_concepts)
    areas = []
    for concept in concepts:
        distance = np.sort(between[:, reference_concepts == concept], 1)[:, :NEIGHBOURS].mean(1)
        areas.append(auroc(-distance[query_concepts == concept], -distance[query_concepts != concept]))
    return bootstrap_mean(np.array(areas), concepts, 0.5)


def distances(queries: Floats, references: Floats) -> NDArray[np.float64]:
    """Euclidean distances (queries, references)."""
    squares = (queries**2).sum(1)[:, None] + (references**2).sum(1) - 2 * queries @ references.T
    return np.sqrt(np.maximum(squares, 0))
