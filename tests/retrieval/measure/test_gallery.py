"""Calibration and neighbour metrics of a gallery, compared with values worked out by hand."""

import numpy as np
import pytest
import torch

from loradex.retrieval.measure.gallery import Gallery
from loradex.retrieval.measure.metrics import calibration_error
from loradex.retrieval.space.calibration import Background, Calibration
from loradex.retrieval.space.labels import ABSTAIN_BELOW

GALLERY = Gallery(np.array(["heldout"] * 4), np.array([0, 1, 2, 2, 3]), np.array(["test_holdout"] * 5))
CALIBRATION = Calibration(Background(torch.zeros(2), torch.eye(2)), temperature=0.5, unknown=0.0)
SCORES = torch.tensor([[3.0, 0, 0, 0], [0, 2.5, 0, 0], [0, 2.0, 1.9, 0], [0, 0, 0.1, 0], [2.0, 0, 0, 0]])


def test_answers_and_abstentions_are_counted() -> None:
    logits = np.concatenate([SCORES.double().numpy() / 0.5, np.full((5, 1), np.log(4))], 1)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    best, truth = shares[:, :4].max(1), GALLERY.concept
    metrics = GALLERY.calibration_metrics(CALIBRATION, SCORES)
    answered = best >= ABSTAIN_BELOW
    right = SCORES.argmax(1).numpy() == truth
    assert 0 < answered.sum() < 5
    assert metrics["answered"].value == pytest.approx(answered.mean())
    assert metrics["right_when_answered"].value == pytest.approx(right[answered].mean())
    without = np.exp(logits)
    without[np.arange(5), truth] = 0
    without /= without.sum(1, keepdims=True)
    none = without[:, :4].max(1)
    assert metrics["answered_when_the_truth_is_no_candidate"].value == pytest.approx((none >= ABSTAIN_BELOW).mean())
    confidence, hits = np.concatenate([np.tile(best, 4), none]), np.concatenate([np.tile(right, 4), np.zeros(5)])
    assert metrics["calibration_error"].value == pytest.approx(calibration_error(confidence, hits), abs=1e-6)


def test_the_first_model_of_a_concept_is_the_reference_of_the_others() -> None:
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, 1.1], [-1, 0]]), dim=-1)
    metrics = GALLERY.neighbour_metrics(vectors)
    assert (metrics["nearest_model_top1"].value, metrics["nearest_model_top1"].n) == (1.0, 1)
