"""Scores of prompts against dense Gaussian likelihoods, worked out by numpy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from loradex.retrieval.words import likelihood
from loradex.retrieval.words.likelihood import FLOOR, POSITIONS, STRENGTH, CommonStates

WIDTH = 24


@pytest.fixture
def common() -> CommonStates:
    """Of random texts of nine positions, whose states share a start and have a mean at each position."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(9, WIDTH, generator=generator) * torch.tensor([30.0, *[0.5] * 8])[:, None]
    return CommonStates.of(means + torch.randn(200, 9, WIDTH, generator=generator))


@pytest.fixture
def layers(common: CommonStates) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return common.own_layers([torch.randn(rank, WIDTH, generator=generator) for rank in (1, 3, 8)])


def random_states(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed))


def log_likelihood(rows: NDArray[np.float64], covariance: NDArray[np.float64], floor: float) -> float:
    """Of a Gaussian with this covariance times the scale that fits best, where all rows count as one."""
    unexplained = float(np.trace(np.linalg.inv(covariance) @ rows.T @ rows)) + floor
    scale = unexplained / WIDTH
    _, determinant = np.linalg.slogdet(covariance)
    return -0.5 * (WIDTH * np.log(2 * np.pi * scale) + determinant + unexplained / scale)


def dense_score(common: CommonStates, layers: list[Tensor], states: Tensor) -> float:
    """The logarithm of the likelihood with a prompt over that without one."""
    prompt = states.double().numpy()
    covariance = np.eye(WIDTH) + STRENGTH * WIDTH / (POSITIONS * common.length) * prompt.T @ prompt
    return sum(
        log_likelihood(rows.double().numpy(), covariance, FLOOR)
        - log_likelihood(rows.double().numpy(), np.eye(WIDTH), FLOOR)
        for rows in layers
    )


def test_scores_are_those_of_dense_gaussians(common: CommonStates, layers: list[Tensor]) -> None:
    prompts = common.centred(random_states(5, 4))
    expected = [dense_score(common, layers, prompt) for prompt in prompts]
    assert common.scores(layers, prompts).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert max(expected) - min(expected) > 1


def test_positions_of_zeros_add_nothing(common: CommonStates, layers: list[Tensor]) -> None:
    prompts = random_states(5, 4)
    longer = torch.cat([prompts, torch.zeros(5, 3, WIDTH)], 1)
    assert common.scores(layers, longer).tolist() == pytest.approx(common.scores(layers, prompts).tolist(), rel=1e-4)
    assert common.scores(layers, torch.zeros(2, 4, WIDTH)).tolist() == [0, 0]


def test_many_prompts_are_scored_in_parts(
    common: CommonStates, layers: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = random_states(7, 3)
    expected = common.scores(layers, prompts).tolist()
    monkeypatch.setattr(likelihood, "AT_ONCE", 3)
    assert common.scores(layers, prompts).tolist() == pytest.approx(expected)


def test_quick_scores_are_those_of_one_position(common: CommonStates, layers: list[Tensor]) -> None:
    states = random_states(6)
    expected = common.scores(layers, states[:, None]).tolist()
    assert common.quick_scores(layers, states).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_quick_scores_behind_others_are_what_a_state_adds(common: CommonStates, layers: list[Tensor]) -> None:
    found, states = random_states(3, seed=3), random_states(6)
    before = common.scores(layers, found[None])
    joined = common.scores(layers, torch.cat([found.expand(6, -1, -1), states[:, None]], 1))
    quick = common.quick_scores(layers, states, found)
    assert quick.tolist() == pytest.approx((joined - before).tolist(), rel=1e-3, abs=1e-3)


def test_what_all_texts_share_is_taken_out(common: CommonStates, layers: list[Tensor]) -> None:
    start = common.shared[0]
    assert common.without_shared(start).norm() < 1e-5
    assert common.centred(common.means[None]).norm() < 1e-4
    assert all(float(rows.norm()) == pytest.approx(1) and (rows @ start).abs().max() < 1e-5 for rows in layers)
    (own,) = common.own_layers([start[None]])
    assert own.isfinite().all()
