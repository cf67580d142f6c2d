"""Scores against a softmax written out in NumPy, and what they are to be: log-odds that compare."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from loradex.retrieval.space.calibration import Background, Calibration
from loradex.retrieval.space.likelihood import (
    PRIOR,
    SCALE_BOUNDS,
    SLOPE,
    TEMPERATURE,
    Likelihood,
    QuerySpread,
    log_likelihood_ratios,
    probability,
    search_scores,
)

DIM, TEXTS = 16, 40
GENERATOR = torch.Generator().manual_seed(0)
MODELS = F.normalize(torch.randn(300, DIM, generator=GENERATOR) * torch.linspace(0.3, 2, DIM), dim=-1)
LABELS = F.normalize(torch.randn(TEXTS, DIM, generator=GENERATOR), dim=-1)
BACKGROUND = Background.fit(MODELS)
CALIBRATION = Calibration(BACKGROUND, temperature=0.25, unknown=3.0)


def log_odds(cosines: NDArray[np.float64], cosine: float, sharpness: float, scale: float) -> float:
    """The score of a text with a cosine, for a vector with cosines (texts,), as the module's docstring has it."""
    mean_likelihood = np.exp(sharpness * cosines).mean()
    ratio = math.log(math.exp(sharpness * scale * cosine) / mean_likelihood)
    return SLOPE * ratio + math.log(PRIOR / (1 - PRIOR))


def test_scores_of_an_expert_are_those_of_a_softmax() -> None:
    """Texts count over their spread among the training models, the query likewise."""
    deviations = np.sqrt(
        np.einsum("ij,jk,ik->i", *(each.double().numpy() for each in (LABELS, BACKGROUND.covariance, LABELS)))
    )
    sharpness = 1 / (deviations.mean() * CALIBRATION.temperature)
    spread = QuerySpread.of([BACKGROUND], LABELS)
    scores = search_scores(Likelihood.of_expert(CALIBRATION, LABELS), spread, MODELS[:5], LABELS).numpy()
    cosines = MODELS[:5].double().numpy() @ LABELS.double().numpy().T
    for row, column in np.ndindex(5, TEXTS):
        scale = np.clip(deviations.mean() / deviations[column], *SCALE_BOUNDS)
        expected = log_odds(cosines[row] * deviations.mean() / deviations, cosines[row, column], sharpness, scale)
        assert scores[row, column] == pytest.approx(expected, abs=1e-3)


def test_pictures_are_scaled_by_the_spread_of_their_own_cosines() -> None:
    vector = MODELS[7]
    scale, bias = Likelihood.of_pictures(LABELS).scale_and_bias(vector)
    cosines = (LABELS @ vector).double().numpy()
    sharpness = 1 / (TEMPERATURE * cosines.std(ddof=1))
    assert scale == pytest.approx(SLOPE * sharpness, rel=1e-5)
    assert scale * cosines[3] + bias == pytest.approx(log_odds(cosines, cosines[3], sharpness, 1.0), abs=1e-4)


def test_a_text_near_which_all_models_lie_counts_less() -> None:
    """The spread along the last axis is the largest."""
    spread = QuerySpread.of([BACKGROUND], LABELS)
    scales = [spread.scale(axis) for axis in np.eye(DIM, dtype=np.float32)]
    assert scales[0] > 1 > scales[-1]
    assert all(SCALE_BOUNDS[0] <= scale <= SCALE_BOUNDS[1] for scale in scales)


def test_the_background_of_several_experts_is_their_mean() -> None:
    other = Background(torch.zeros(DIM), 3 * BACKGROUND.covariance)
    one, both = QuerySpread.of([BACKGROUND], LABELS), QuerySpread.of([BACKGROUND, other], LABELS)
    np.testing.assert_allclose(both.covariance, 2 * one.covariance, rtol=1e-6)
    assert both.scale(LABELS[0].numpy()) == pytest.approx(one.scale(LABELS[0].numpy()), rel=1e-5)


def test_scores_are_the_log_odds_of_probabilities() -> None:
    scores = np.array([-800.0, -1.5, 0.0, 2.0, 800.0])
    probabilities = probability(scores)
    np.testing.assert_allclose(np.log(probabilities[1:4] / (1 - probabilities[1:4])), scores[1:4])
    assert np.isfinite(probabilities).all()


def test_ratios_average_to_one_over_the_labels() -> None:
    ratios = log_likelihood_ratios(torch.randn(6, 9, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(ratios.exp().mean(1), torch.ones(6))
