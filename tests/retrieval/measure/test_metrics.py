"""Metrics, compared with values worked out by hand and with plain loops."""

import numpy as np
import pytest

from loradex.retrieval.measure.metrics import (
    average_precision,
    bootstrap_mean,
    chance_level,
    ranks,
    recall_at_k,
    text_to_model_metrics,
    top_k_hits,
    zero_shot_accuracy,
)

SCORES = np.array([[0.9, 0.5, 0.1], [0.2, 0.3, 0.8], [0.4, 0.4, 0.1]])


def test_ranks_count_ties_against_the_truth() -> None:
    assert ranks(SCORES, np.array([0, 1, 0])).tolist() == [0, 1, 1]
    assert top_k_hits(SCORES, np.array([0, 1, 0]), 1).tolist() == [1, 0, 0]
    assert top_k_hits(SCORES, np.array([0, 1, 0]), 2).tolist() == [1, 1, 1]


def test_average_precision_by_hand() -> None:
    scores, concepts = np.array([[0.9, 0.8, 0.7, 0.6]]), np.array([5, 1, 5, 1])
    assert average_precision(scores, np.array([5]), concepts)[0] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert average_precision(scores, np.array([1]), concepts)[0] == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_ties_never_help_a_search() -> None:
    scores, concepts = np.zeros((1, 4)), np.array([7, 0, 0, 0])
    assert recall_at_k(scores, np.array([7]), concepts, 3).tolist() == [0]
    assert average_precision(scores, np.array([7]), concepts)[0] == pytest.approx(1 / 4)


def test_recall_equals_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    scores, concepts, queries = rng.random((20, 50)), rng.integers(0, 20, 50), np.arange(20)
    concepts[:20] = queries
    for k in 1, 5, 10:
        expected = [float(query in concepts[np.argsort(-row)[:k]]) for row, query in zip(scores, queries, strict=True)]
        assert recall_at_k(scores, queries, concepts, k).tolist() == expected


def test_the_bootstrap_draws_concepts_not_models() -> None:
    """Two concepts of a hundred models each, one always right and one never: the interval must show that n is 2."""
    metric = bootstrap_mean(np.repeat([1.0, 0.0], 100), np.repeat([0, 1], 100), 0.5)
    assert (metric.value, metric.low, metric.high, metric.n) == (0.5, 0.0, 1.0, 200)


def test_random_scores_score_at_chance() -> None:
    rng = np.random.default_rng(1)
    concepts, queries = np.repeat(np.arange(400), 2), np.arange(400)
    for metric in text_to_model_metrics(rng.random((400, 800)), queries, concepts).values():
        assert metric.value == pytest.approx(metric.chance, abs=0.02)
    metric = zero_shot_accuracy(rng.random((2000, 10)), rng.integers(0, 10, 2000), 1)
    assert metric.chance == pytest.approx(0.1)
    assert metric.value == pytest.approx(0.1, abs=0.03)
    assert chance_level(lambda s, q, c: recall_at_k(s, q, c, 10), queries, concepts) == pytest.approx(
        20 / 800, abs=0.003
    )
