"""Neighbour metrics, areas and calibration errors, compared with values worked out by hand."""

import numpy as np
import pytest

from loradex.retrieval.measure.metrics import auroc, bootstrap_statistic, calibration_error
from loradex.retrieval.measure.neighbours import distances, nearest_label_accuracy, one_class_auroc

REFERENCES, CONCEPTS = np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [5.0, 6.0]]), np.array([7, 7, 9, 9])


def test_distances_are_euclidean() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    np.testing.assert_allclose(distances(a, b), [[np.linalg.norm(x - y) for y in b] for x in a])


def test_the_nearest_reference_gives_the_label() -> None:
    queries, truth = np.array([[0.0, 0.2], [5.0, 5.4], [4.0, 4.0]]), np.array([7, 9, 7])
    metric = nearest_label_accuracy(queries, REFERENCES, truth, CONCEPTS)
    assert (metric.value, metric.n, metric.chance) == (pytest.approx(2 / 3), 3, 0.5)


def test_one_class_areas_are_averaged_over_concepts() -> None:
    queries, truth = np.array([[0.0, 0.2], [5.0, 5.4], [1.0, 1.0]]), np.array([7, 9, 9])
    assert one_class_auroc(queries, REFERENCES, truth, CONCEPTS).value == 1.0
    swapped = one_class_auroc(queries, REFERENCES, np.array([9, 7, 9]), CONCEPTS)
    assert swapped.value == 0.0


def test_an_area_counts_ties_half() -> None:
    assert auroc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == pytest.approx((1.5 + 2) / 4)
    assert auroc(np.zeros(3), np.zeros(4)) == 0.5


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    confidence, right = np.array([0.2, 0.2, 0.8, 0.8]), np.array([0.0, 1.0, 1.0, 1.0])
    assert calibration_error(confidence, right, bins=2) == pytest.approx((0.3 + 0.2) / 2)
    assert calibration_error(np.full(4, 0.5), np.array([0.0, 1.0, 0.0, 1.0]), bins=1) == 0


def test_a_bootstrap_draws_whole_concepts() -> None:
    cases, concepts = np.array([0.0, 0.0, 1.0, 1.0]), np.array([1, 1, 2, 2])
    metric = bootstrap_statistic(lambda rows: float(cases[rows].mean()), concepts, 0.5)
    assert (metric.value, metric.n) == (0.5, 4)
    assert (metric.low, metric.high) == (0.0, 1.0)
