"""Familiarity: compared with its dense formula, and between model trees."""

import pytest
import torch

from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.familiarity import DIRECTIONS, MIN_FAMILIARITY, Familiarity, captured_share

OUT, IN = 48, 20


def some_models(directions: torch.Tensor, models: int, seed: int) -> dict[str, Factors]:
    """Updates whose outputs lie mostly in some directions (out, k)."""
    torch.manual_seed(seed)
    up = directions @ torch.randn(models, directions.shape[1], 3) + torch.randn(models, OUT, 3) / 20
    return {"layer": Factors(torch.randn(models, 3, IN), up)}


def some_directions(seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.linalg.qr(torch.randn(OUT, 6))[0]


def test_the_captured_share_equals_its_dense_formula() -> None:
    factors, directions = some_models(some_directions(0), 5, 1)["layer"], torch.linalg.qr(torch.randn(OUT, 4))[0].T
    dense = factors.up @ factors.down
    expected = (directions @ dense).square().sum((1, 2)) / dense.square().sum((1, 2))
    torch.testing.assert_close(captured_share(factors, directions), expected)


def test_models_of_the_tree_are_familiar_and_strangers_are_not() -> None:
    familiarity = Familiarity.fit(some_models(some_directions(0), 60, 1))
    assert familiarity.directions["layer"].shape == (DIRECTIONS, OUT)
    own, strangers = (
        familiarity.scores(some_models(some_directions(0), 30, 2)),
        familiarity.scores(some_models(some_directions(9), 30, 3)),
    )
    assert float(own.mean()) == pytest.approx(1, abs=0.05)
    assert abs(float(strangers.mean())) < 0.25 < MIN_FAMILIARITY < float(own.min())


def test_strength_and_missing_layers_change_little() -> None:
    models = {**some_models(some_directions(0), 60, 1), "other": some_models(some_directions(1), 60, 4)["layer"]}
    familiarity = Familiarity.fit(models)
    louder = {layer: Factors(factors.down, 9 * factors.up) for layer, factors in models.items()}
    torch.testing.assert_close(familiarity.scores(louder), familiarity.scores(models))
    assert float(familiarity.scores({"layer": models["layer"]}).mean()) == pytest.approx(1, abs=0.1)
