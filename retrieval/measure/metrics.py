"""Metrics of zero-shot classification and of text-to-model search, with bootstrap intervals over concepts.

A score that ties with a true one counts against it. Means are given with the interval that results when whole concepts
are drawn again, since models of one concept are not independent.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric with its 95 % interval, the number of cases, and its value at chance."""

    value: float
    low: float
    high: float
    n: int
    chance: float


def ranks(scores: Floats, truth: Ints) -> Ints:
    """How many candidates score at least as well as the true one (n,), itself not counted.

    Args:
        scores: (n, candidates).
        truth: (n,), columns of ``scores``.
    """
    of_truth = np.take_along_axis(scores, truth[:, None], 1)
    return (scores >= of_truth).sum(1) - 1


def top_k_hits(scores: Floats, truth: Ints, k: int) -> Floats:
    """1 where the true candidate is among the ``k`` best of its row, else 0; arguments as for ``ranks``."""
    return (ranks(scores, truth) < k).astype(np.float64)


def recall_at_k(scores: Floats, queries: Ints, concepts: Ints, k: int) -> Floats:
    """1 where a model of the query's concept is among the ``k`` best, else 0 (queries,).

    Args:
        scores: (queries, models).
        queries: (queries,), the concept of each query.
        concepts: (models,), the concept of each model.
        k: the number of best models.
    """
    wrong = np.where(concepts[None] == queries[:, None], -np.inf, scores)
    right = np.where(concepts[None] == queries[:, None], scores, -np.inf)
    return ((wrong >= right.max(1, keepdims=True)).sum(1) < k).astype(np.float64)


def average_precision(scores: Floats, queries: Ints, concepts: Ints) -> Floats:
    """Average precision of each query's ranking of the models (queries,); arguments as for ``recall_at_k``."""
    precisions = np.empty(len(queries))
    for row, query in enumerate(queries):
        relevant = concepts == query
        order = np.lexsort((relevant, -scores[row]))  # among ties the wrong ones come first
        positions = np.flatnonzero(relevant[order])
        precisions[row] = np.mean(np.arange(1, len(positions) + 1) / (positions + 1))
    return precisions


def bootstrap_mean(values: Floats, concepts: Ints, chance: float, seed: int = 0) -> Metric:
    """The mean of ``values`` (n,), with its interval when whole concepts (n,) are drawn again with replacement."""
    groups, inverse = np.unique(concepts, return_inverse=True)
    sums, counts = np.bincount(inverse, values), np.bincount(inverse)
    drawn = np.random.default_rng(seed).integers(len(groups), size=(RESAMPLES, len(groups)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Metric(float(values.mean()), float(low), float(high), len(values), chance)


def bootstrap_statistic(statistic: Callable[[Ints], float], concepts: Ints, chance: float, seed: int = 0) -> Metric:
    """A statistic of rows that is no mean, with its interval when whole concepts (n,) are drawn again."""
    groups, inverse = np.unique(concepts, return_inverse=True)
    rows_of = [np.flatnonzero(inverse == group) for group in range(len(groups))]
    drawn = np.random.default_rng(seed).integers(len(groups), size=(RESAMPLES // 5, len(groups)))
    low, high = np.quantile(
        [statistic(np.concatenate([rows_of[group] for group in sample])) for sample in drawn], [0.025, 0.975]
    )
    return Metric(statistic(np.arange(len(concepts))), float(low), float(high), len(concepts), chance)


def category_accuracy(scores: Floats, members: NDArray[np.bool_]) -> Metric:
    """The share of categories predicted correctly by the sign of the scores, with its interval over models.

    Chance is the accuracy of one answer for all: a half where models know half of the categories, as Model-J's do.

    Args:
        scores: (models, categories).
        members: (models, categories), whether a model was trained on a category.
    """
    right = ((scores > 0) == members).mean(1)
    return bootstrap_mean(right, np.arange(len(right)), float(max(members.mean(), 1 - members.mean())))


def calibration_error(confidence: Floats, right: Floats, bins: int = 10) -> float:
    """Mean distance of confidence (n,) from accuracy, over equally filled bins.

    This is the expected calibration error (Naeini, Cooper and Hauskrecht 2015).
    """
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return float(
        sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in parts if len(part))
        / len(confidence)
    )


def auroc(positive: Floats, negative: Floats) -> float:
    """Area under the ROC curve: how often a positive scores above a negative; ties count half."""
    ordered = np.sort(negative)
    below, up_to = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + up_to).mean() / (2 * len(negative)))


def chance_level(
    metric: Callable[[Floats, Ints, Ints], Floats], queries: Ints, concepts: Ints, draws: int = 50
) -> float:
    """The mean of a text-to-model metric for random scores."""
    rng = np.random.default_rng(0)
    return float(
        np.mean([metric(rng.random((len(queries), len(concepts))), queries, concepts).mean() for _ in range(draws)])
    )


def zero_shot_accuracy(scores: Floats, truth: Ints, k: int) -> Metric:
    """Top-k accuracy of naming each model among all candidates; arguments as for ``ranks``."""
    return bootstrap_mean(top_k_hits(scores, truth, k), truth, k / scores.shape[1])


def text_to_model_metrics(scores: Floats, queries: Ints, concepts: Ints) -> dict[str, Metric]:
    """Recall at 1, 5 and 10 and mean average precision of searching models by each concept's text.

    Arguments as for ``recall_at_k``.
    """
    metrics: dict[str, Callable[[Floats, Ints, Ints], Floats]] = {
        f"text_to_model_recall_at_{k}": lambda s, q, c, k=k: recall_at_k(s, q, c, k)  # type: ignore[misc]
        for k in (1, 5, 10)
    }
    metrics["text_to_model_map"] = average_precision
    return {
        name: bootstrap_mean(metric(scores, queries, concepts), queries, chance_level(metric, queries, concepts))
        for name, metric in metrics.items()
    }
