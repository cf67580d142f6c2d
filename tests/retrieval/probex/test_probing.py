"""The factor forms against the same formulas written out densely."""

import pytest
import torch
from torch import Tensor

from retrieval.lora import LayerUpdate
from retrieval.probex.probex import LayerProbe, ProbeX, ProbeXConfig
from retrieval.probex.probing import Factors, bilinear, energy, input_spectrum, output_spectrum
from retrieval.probex.sketch import SketchConfig, SketchExpert

OUT, IN = 40, 24


def some_updates(ranks: tuple[int, ...] = (2, 4, 8), seed: int = 0) -> list[LayerUpdate]:
    torch.manual_seed(seed)
    return [LayerUpdate(torch.randn(rank, IN), torch.randn(OUT, rank)) for rank in ranks]


def dense(update: LayerUpdate) -> Tensor:
    return update.up.double() @ update.down.double()


def close(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert (a.double() - b.double()).norm() <= 1e-5 * b.double().norm()


def test_bilinear_equals_the_dense_product_over_mixed_ranks() -> None:
    updates = some_updates()
    left, right = torch.randn(5, OUT), torch.randn(IN, 7)
    expected = torch.stack([left.double() @ dense(update) @ right.double() for update in updates])
    close(bilinear(Factors.stack(updates), left, right), expected)


def test_energy_equals_the_squared_frobenius_norm() -> None:
    updates = some_updates()
    close(energy(Factors.stack(updates)), torch.stack([dense(update).square().sum() for update in updates]))


def test_spectra_equal_the_dense_second_moments() -> None:
    updates = some_updates()
    weights = torch.tensor([0.5, 2.0, 1.0])
    matrices = [dense(update) for update in updates]
    close(output_spectrum(Factors.stack(updates), weights), sum(w * m @ m.T for w, m in zip(weights, matrices, strict=True)))
    close(input_spectrum(Factors.stack(updates), weights), sum(w * m.T @ m for w, m in zip(weights, matrices, strict=True)))


def test_zero_padding_changes_nothing() -> None:
    updates = some_updates()
    alone = torch.cat([bilinear(Factors.stack([update]), torch.eye(OUT), torch.eye(IN)) for update in updates])
    close(bilinear(Factors.stack(updates), torch.eye(OUT), torch.eye(IN)), alone)


def test_probex_equals_the_official_formula_on_dense_updates() -> None:
    """Official code: relu(shared_probe_proj((x @ probes)^T)), flattened by probe, through per_probe_encoders."""
    torch.manual_seed(1)
    updates = some_updates()
    probe = LayerProbe((OUT, IN), ProbeXConfig(("layer",), probes=6, projection=5, representation=9))
    weights = torch.stack([dense(update) for update in updates])
    responses = (weights @ probe.probes.double()).transpose(1, 2) @ probe.projection.double().T
    flat = torch.relu(responses).reshape(len(updates), -1)
    expected = flat @ probe.encoders.weight.double().T + probe.encoders.bias.double()
    close(probe(Factors.stack(updates)), expected)


def refactored(update: LayerUpdate, seed: int) -> LayerUpdate:
    torch.manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(update.rank, update.rank))[0] @ torch.diag(torch.rand(update.rank) + 0.5)
    return LayerUpdate(torch.linalg.solve(turn, update.down), update.up @ turn)


def test_experts_see_only_the_product_of_the_factors() -> None:
    updates, others = some_updates((2, 4, 8, 4, 2)), [refactored(update, i) for i, update in enumerate(some_updates((2, 4, 8, 4, 2)))]
    models, twins = {"layer": Factors.stack(updates)}, {"layer": Factors.stack(others)}
    torch.manual_seed(2)
    probex = ProbeX({"layer": (OUT, IN)}, 8, ProbeXConfig(("layer",), 6, 5, 9)).eval()
    close(probex.encode(models), probex.encode(twins))
    sketch = SketchExpert.fit(models, torch.randn(5, 8), SketchConfig(("layer",), outputs=4, inputs=3))
    close(sketch.encode(models), sketch.encode(twins))


def test_a_sketch_ignores_the_scale_of_an_update() -> None:
    updates = some_updates((2, 4, 8, 4, 2))
    sketch = SketchExpert.fit({"layer": Factors.stack(updates)}, torch.randn(5, 8), SketchConfig(("layer",), outputs=4, inputs=3))
    louder = [LayerUpdate(update.down, 7 * update.up) for update in updates]
    close(sketch.encode({"layer": Factors.stack(updates)}), sketch.encode({"layer": Factors.stack(louder)}))


@pytest.mark.parametrize(("layer", "weight"), [("block.to_v", 1.0), ("block.to_k", 0.25)])
def test_a_sketch_equals_its_dense_formula(layer: str, weight: float) -> None:
    updates = some_updates((2, 4, 8, 4, 2))
    models, targets = {layer: Factors.stack(updates)}, torch.randn(5, 8)
    sketch = SketchExpert.fit(models, targets, SketchConfig((layer,), outputs=4, inputs=3, query_key_weight=0.25))
    features = weight * torch.stack([(sketch.left[layer].double() @ dense(u) @ sketch.right[layer].double()).flatten() / dense(u).norm() for u in updates])
    expected = torch.nn.functional.normalize((features - sketch.mean) @ (sketch.weight @ sketch.basis).double(), dim=-1)
    close(sketch.encode(models), expected)
