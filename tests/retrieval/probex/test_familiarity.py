"""Which tree updates are of: against the dense formula, and between trees."""

import pytest
import torch

from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.familiarity import DIRECTIONS, FAMILIAR, Familiarity, captured

OUT, IN = 48, 20


def some_models(places: torch.Tensor, models: int, seed: int) -> dict[str, Factors]:
    """Updates whose outputs lie mostly in some places (out, k)."""
    torch.manual_seed(seed)
    up = places @ torch.randn(models, places.shape[1], 3) + torch.randn(models, OUT, 3) / 20
    return {"layer": Factors(torch.randn(models, 3, IN), up)}


def places(seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.linalg.qr(torch.randn(OUT, 6))[0]


def test_the_captured_share_equals_its_dense_formula() -> None:
    factors, directions = some_models(places(0), 5, 1)["layer"], torch.linalg.qr(torch.randn(OUT, 4))[0].T
    dense = factors.up @ factors.down
    expected = (directions @ dense).square().sum((1, 2)) / dense.square().sum((1, 2))
    torch.testing.assert_close(captured(factors, directions), expected)


def test_own_models_are_familiar_and_strangers_are_not() -> None:
    known = Familiarity.of(some_models(places(0), 60, 1))
    assert known.directions["layer"].shape == (DIRECTIONS, OUT)
    own, strangers = known.of_models(some_models(places(0), 30, 2)), known.of_models(some_models(places(9), 30, 3))
    assert float(own.mean()) == pytest.approx(1, abs=0.05)
    assert abs(float(strangers.mean())) < 0.25 < FAMILIAR < float(own.min())


def test_strength_and_a_part_of_the_layers_change_little() -> None:
    models = {**some_models(places(0), 60, 1), "other": some_models(places(1), 60, 4)["layer"]}
    known = Familiarity.of(models)
    louder = {layer: Factors(factors.down, 9 * factors.up) for layer, factors in models.items()}
    torch.testing.assert_close(known.of_models(louder), known.of_models(models))
    assert float(known.of_models({"layer": models["layer"]}).mean()) == pytest.approx(1, abs=0.1)
