"""Metrics of zero-shot classification and of text-to-model search, with intervals from a bootstrap over concepts.

All take a matrix of scores and integer concepts; a score that ties with a right one counts against it.
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
    """A fraction with its 95 % interval, how many cases it is the mean of, and what chance gives."""

    value: float
    low: float
    high: float
    n: int
    chance: float


def ranks(scores: Floats, truth: Ints) -> Ints:
    """For each row of ``scores`` (n, candidates), how many candidates score at least as well as the true one, itself left out."""
    own = np.take_along_axis(scores, truth[:, None], 1)
    return (scores >= own).sum(1) - 1


def top_k(scores: Floats, truth: Ints, k: int) -> Floats:
    """1 where the true candidate is among the ``k`` best of its row, else 0."""
    return (ranks(scores, truth) < k).astype(np.float64)


def recall_at_k(scores: Floats, queries: Ints, concepts: Ints, k: int) -> Floats:
    """1 where a model of the query's concept is among the ``k`` best, for ``scores`` (queries, models)."""
    wrong = np.where(concepts[None] == queries[:, None], -np.inf, scores)
    right = np.where(concepts[None] == queries[:, None], scores, -np.inf)
    return ((wrong >= right.max(1, keepdims=True)).sum(1) < k).astype(np.float64)


def average_precision(scores: Floats, queries: Ints, concepts: Ints) -> Floats:
    """Average precision of each query's ranking of the models, for ``scores`` (queries, models)."""
    made = np.empty(len(queries))
    for row, query in enumerate(queries):
        relevant = concepts == query
        order = np.lexsort((relevant, -scores[row]))  # among ties the wrong ones come first
        places = np.flatnonzero(relevant[order])
        made[row] = np.mean(np.arange(1, len(places) + 1) / (places + 1))
    return made


def summarise(cases: Floats, concepts: Ints, chance: float, seed: int = 0) -> Metric:
    """The mean of ``cases`` (n,), and its interval when whole concepts are drawn again with replacement."""
    groups, inverse = np.unique(concepts, return_inverse=True)
    sums, counts = np.bincount(inverse, cases), np.bincount(inverse)
    drawn = np.random.default_rng(seed).integers(len(groups), size=(RESAMPLES, len(groups)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Metric(float(cases.mean()), float(low), float(high), len(cases), chance)


def category_accuracy(scores: Floats, members: NDArray[np.bool_]) -> Metric:
    """The share of categories that scores (models, categories) above or below 0 tell rightly, with its interval over models.

    Chance is that of one answer for all: half where models know half of the categories, as Model-J's do.
    """
    right = ((scores > 0) == members).mean(1)
    return summarise(right, np.arange(len(right)), float(max(members.mean(), 1 - members.mean())))


def bootstrapped(statistic: Callable[[Ints], float], concepts: Ints, chance: float, seed: int = 0) -> Metric:
    """A statistic of rows, with its interval when whole concepts are drawn again; for what is no mean of cases."""
    groups, inverse = np.unique(concepts, return_inverse=True)
    members = [np.flatnonzero(inverse == group) for group in range(len(groups))]
    drawn = np.random.default_rng(seed).integers(len(groups), size=(RESAMPLES // 5, len(groups)))
    low, high = np.quantile(
        [statistic(np.concatenate([members[group] for group in chosen])) for chosen in drawn], [0.025, 0.975]
    )
    return Metric(statistic(np.arange(len(concepts))), float(low), float(high), len(concepts), chance)


def calibration_error(confidence: Floats, right: Floats, bins: int = 10) -> float:
    """How far confidence (n,) is from accuracy on average, over equally filled bins (ECE: Naeini, Cooper and Hauskrecht 2015)."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return float(
        sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in parts if len(part))
        / len(confidence)
    )


def auroc(positive: Floats, negative: Floats) -> float:
    """How often a positive scores above a negative; ties count half."""
    ordered = np.sort(negative)
    below, up_to = np.searchsorted(ordered, positive, "left"), np.searchsorted(ordered, positive, "right")
    return float((below + up_to).mean() / (2 * len(negative)))


def chance_of(metric: Callable[[Floats, Ints, Ints], Floats], queries: Ints, concepts: Ints, draws: int = 50) -> float:
    """What random scores give on average for a text-to-model metric on this gallery."""
    rng = np.random.default_rng(0)
    return float(
        np.mean([metric(rng.random((len(queries), len(concepts))), queries, concepts).mean() for _ in range(draws)])
    )


def zero_shot(scores: Floats, truth: Ints, k: int) -> Metric:
    """Top-k accuracy of naming each model among all candidates; ``truth`` are columns of ``scores`` (models, candidates)."""
    return summarise(top_k(scores, truth, k), truth, k / scores.shape[1])


def text_to_model(scores: Floats, queries: Ints, concepts: Ints) -> dict[str, Metric]:
    """Recall at 1, 5 and 10 and mean average precision of searching a gallery by each concept's text."""
    metrics: dict[str, Callable[[Floats, Ints, Ints], Floats]] = {
        f"text_to_model_recall_at_{k}": lambda s, q, c, k=k: recall_at_k(s, q, c, k)  # type: ignore[misc]
        for k in (1, 5, 10)
    }
    metrics["text_to_model_map"] = average_precision
    return {
        name: summarise(metric(scores, queries, concepts), queries, chance_of(metric, queries, concepts))
        for name, metric in metrics.items()
    }
