"""Baselines, compared with ordinary regressions on dense updates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from loradex.retrieval.measure.baselines import (
    BLOCK,
    Baselines,
    DenseLinear,
    PrincipalWeights,
    from_bytes,
    gram_matrix,
    statistics,
    to_bytes,
)
from loradex.retrieval.probex.batched_factors import Factors


def some_models(count: int = 30, seed: int = 0) -> Factors:
    torch.manual_seed(seed)
    return Factors(torch.randn(count, 3, 7), torch.randn(count, 5, 3))


def test_the_gram_matrix_equals_the_dense_one() -> None:
    factors = some_models()
    dense = (factors.up @ factors.down).flatten(1)
    torch.testing.assert_close(gram_matrix(factors), dense @ dense.T, rtol=1e-4, atol=1e-3)


def test_dense_linear_equals_primal_ridge_regression() -> None:
    factors, targets, ridge = some_models(), torch.randn(30, 4), 0.3
    fitted = DenseLinear.fit({"layer": factors}, targets, "layer", ridge)
    dense = (factors.up @ factors.down).flatten(1).double().numpy()
    features = dense - dense.mean(0)
    penalty = ridge * np.mean((features**2).sum(1))
    weight = np.linalg.solve(
        features.T @ features + penalty * np.eye(35),
        features.T @ (targets.double().numpy() - targets.double().numpy().mean(0)),
    )
    others = some_models(8, seed=1)
    rows = (others.up @ others.down).flatten(1).double().numpy()
    expected = F.normalize(torch.from_numpy((rows - dense.mean(0)) @ weight + targets.double().numpy().mean(0)), dim=-1)
    torch.testing.assert_close(fitted.encode({"layer": others}).double(), expected, rtol=1e-3, atol=1e-4)


def test_principal_weights_equal_ridge_regression_on_principal_components() -> None:
    models, targets = {"one": some_models(), "two": some_models(seed=2)}, torch.randn(30, 4)
    fitted = PrincipalWeights.fit(models, targets, components=6, ridge=0.5)

    def rows(models: dict[str, Factors]) -> torch.Tensor:
        return torch.cat([(factors.up @ factors.down).flatten(1) for factors in models.values()], 1).double()

    known = rows(models)
    _, spread, axes = torch.linalg.svd(known - known.mean(0), full_matrices=False)
    scores = (known - known.mean(0)) @ axes[:6].T
    penalty = 0.5 * spread[:6].square().mean()
    weight = torch.linalg.solve(scores.T @ scores + penalty * torch.eye(6), scores.T @ targets.double())
    others = {"one": some_models(8, seed=5), "two": some_models(8, seed=6)}
    expected = F.normalize((rows(others) - known.mean(0)) @ axes[:6].T @ weight + targets.double().mean(0), dim=-1)
    torch.testing.assert_close(fitted.encode(others).double(), expected, rtol=1e-3, atol=1e-4)


def test_statistics_leave_padding_out() -> None:
    factors = some_models(2)
    padded = Factors(F.pad(factors.down, (0, 0, 0, 5)), F.pad(factors.up, (0, 5)))
    torch.testing.assert_close(statistics({"layer": padded}, ("layer",)), statistics({"layer": factors}, ("layer",)))
    mean, deviation, least = statistics({"layer": factors}, ("layer",))[0, :3].tolist()
    entries = factors.down[0]
    np.testing.assert_allclose(
        [mean, deviation, least], [entries.mean(), entries.std(correction=0), entries.min()], rtol=1e-5
    )


def test_baselines_survive_their_file(tmp_path: Path) -> None:
    models, targets = {"layer": some_models(64)}, F.normalize(torch.randn(64, 4), dim=-1)
    fitted = Baselines.fit(models, targets, "layer", 0.3)
    fitted.save(tmp_path / "x.safetensors")
    labels = F.normalize(torch.randn(9, 4), dim=-1)
    before, after = fitted.scores(models, labels), Baselines.load(tmp_path / "x.safetensors").scores(models, labels)
    assert set(before) == set(after) == {"dense_linear", "weight_statistics"}
    for name, scores in before.items():
        torch.testing.assert_close(after[name], scores, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("shape", [(3, 16), (5, 7), (2, 3, 11), (1, 1)])
def test_matrices_at_one_byte_a_number_are_off_by_half_a_step(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    tensor = torch.randn(shape) * 10.0 ** torch.randint(-4, 3, shape)
    tensor[0] = 0
    rounded, scales = to_bytes(tensor)
    assert rounded.dtype == torch.int8 and rounded.shape == tensor.shape
    after = from_bytes(rounded, scales)
    for block, off in zip(tensor.flatten().split(BLOCK), (after - tensor).flatten().split(BLOCK), strict=True):
        step = max(float(block.abs().max()) / 127, 2.0**-24)
        assert off.abs().max() <= 0.6 * step  # the step itself is rounded to float16
    assert (after[tensor == 0] == 0).all()


def test_the_map_is_cut_to_its_principal_outputs() -> None:
    torch.manual_seed(0)
    targets = torch.randn(90, 3) @ torch.randn(3, 80)  # of rank 3, in 80 dimensions
    factors = some_models(90)
    fitted = DenseLinear.fit({"layer": factors}, targets, "layer", 0.1)
    assert fitted.weight.shape == (64, 5, 7)
    dense = (factors.up @ factors.down).flatten(1)
    features = dense - dense.mean(0)
    weight = torch.linalg.solve(
        features.T @ features + 0.1 * features.square().sum(1).mean() * torch.eye(35),
        features.T @ (targets - targets.mean(0)),
    )
    expected = F.normalize(features @ weight + targets.mean(0), dim=-1)
    torch.testing.assert_close(fitted.encode({"layer": factors}), expected, atol=1e-3, rtol=1e-3)


def test_a_cut_map_keeps_the_leading_outputs() -> None:
    """Targets of rank 3 need no more than three outputs."""
    torch.manual_seed(0)
    models, targets = {"layer": some_models(90)}, torch.randn(90, 3) @ torch.randn(3, 80)
    full = Baselines.fit(models, targets, "layer", 0.1)
    full = replace(full, dense=replace(full.dense, bias=torch.zeros(80)))
    assert full.truncate(3).dense.weight.shape == (3, 5, 7)
    torch.testing.assert_close(full.truncate(3).dense.encode(models), full.dense.encode(models), atol=1e-3, rtol=1e-3)
    assert (full.truncate(2).dense.encode(models) * full.dense.encode(models)).sum(1).min() < 0.99
