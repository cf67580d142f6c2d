"""Formulas in factor form, compared with the same formulas on dense updates."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from loradex.retrieval.lora import LayerUpdate
from loradex.retrieval.probex.batched_factors import (
    Factors,
    Products,
    bilinear,
    energy,
    input_spectrum,
    output_spectrum,
)
from loradex.retrieval.probex.familiarity import captured_share
from loradex.retrieval.probex.probes import ALL_VIEWS, ProbeConfig, ProbeNet
from loradex.retrieval.probex.sketch import SELECTION_RIDGE, SketchConfig, SketchRegression, sketch
from tests.retrieval.lora.products import some_products
from tests.retrieval.probex.dense import close, dense, some_updates

OUT, IN = 40, 24
CONCEPTS = torch.arange(5)


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
    close(
        output_spectrum(Factors.stack(updates), weights),
        sum(w * m @ m.T for w, m in zip(weights, matrices, strict=True)),
    )
    close(
        input_spectrum(Factors.stack(updates), weights),
        sum(w * m.T @ m for w, m in zip(weights, matrices, strict=True)),
    )


def test_zero_padding_changes_nothing() -> None:
    updates = some_updates()
    alone = torch.cat([bilinear(Factors.stack([update]), torch.eye(OUT), torch.eye(IN)) for update in updates])
    close(bilinear(Factors.stack(updates), torch.eye(OUT), torch.eye(IN)), alone)


def refactored(update: LayerUpdate, seed: int) -> LayerUpdate:
    torch.manual_seed(seed)
    mixing = torch.linalg.qr(torch.randn(update.rank, update.rank))[0] @ torch.diag(torch.rand(update.rank) + 0.5)
    return LayerUpdate(torch.linalg.solve(mixing, update.down), update.up @ mixing)


def some_sketch(models: dict[str, Factors], **settings: Any) -> SketchRegression:
    torch.manual_seed(2)
    return SketchRegression.fit(
        models, torch.randn(5, 8), CONCEPTS, SketchConfig(tuple(models), outputs=4, inputs=3, **settings)
    )


def test_vectors_depend_only_on_the_product_of_the_factors() -> None:
    updates, others = (
        some_updates((2, 4, 8, 4, 2)),
        [refactored(update, i) for i, update in enumerate(some_updates((2, 4, 8, 4, 2)))],
    )
    models, twins = {"layer": Factors.stack(updates)}, {"layer": Factors.stack(others)}
    net = ProbeNet({"layer": (OUT, IN)}, 8, ProbeConfig(("layer",), ALL_VIEWS, 6, 5, 9, standardise=True)).eval()
    close(net.encode(models), net.encode(twins))
    sketch = some_sketch(models)
    close(sketch.encode(models), sketch.encode(twins))


def test_a_sketch_ignores_the_scale_of_an_update() -> None:
    updates = some_updates((2, 4, 8, 4, 2))
    sketch = some_sketch({"layer": Factors.stack(updates)})
    louder = [LayerUpdate(update.down, 7 * update.up) for update in updates]
    close(sketch.encode({"layer": Factors.stack(updates)}), sketch.encode({"layer": Factors.stack(louder)}))


@pytest.mark.parametrize("quadratic", [0.0, 0.5])
def test_a_sketch_equals_its_dense_formula(quadratic: float) -> None:
    updates = some_updates((2, 4, 8, 4, 2))
    sketch = some_sketch({"layer": Factors.stack(updates)}, quadratic=quadratic)
    left, right = sketch.left["layer"].double(), sketch.right["layer"].double()
    features = []
    for update in updates:
        x = dense(update) / dense(update).norm()
        outer = left @ x @ x.T @ left.T
        rows, columns = torch.triu_indices(4, 4)
        triangle = outer[rows, columns] * torch.where(rows == columns, 1.0, 2**0.5)
        features.append(
            torch.cat([(left @ x @ right).flatten(), triangle] if quadratic else [(left @ x @ right).flatten()])
        )
    expected = (torch.stack(features) - sketch.mean["layer"]) @ sketch.weight["layer"].double() @ sketch.basis.double()
    close(sketch.encode({"layer": Factors.stack(updates)}), torch.nn.functional.normalize(expected, dim=-1))


def two_layers(seed: int = 0) -> tuple[dict[str, Factors], Tensor, Tensor]:
    """Models of 40 concepts; one layer depends on the concept, the other is noise."""
    torch.manual_seed(seed)
    directions, targets, concepts = torch.randn(8, OUT), torch.randn(40, 8), torch.arange(40).repeat_interleave(2)
    up = (targets[concepts] @ directions)[:, :, None] + torch.randn(80, OUT, 1) / 2
    signal = Factors(torch.ones(80, 1, IN), up)
    noise = Factors(torch.randn(80, 2, IN), torch.randn(80, OUT, 2))
    return {"signal": signal, "noise": noise}, torch.nn.functional.normalize(targets, dim=-1)[concepts], concepts


def test_layers_are_weighted_by_their_alignment_for_unseen_concepts() -> None:
    models, targets, concepts = two_layers()
    config = SketchConfig(("noise", "signal"), outputs=8, inputs=4)
    expert = SketchRegression.fit(models, targets, concepts, config)
    assert expert.alignment["signal"] > 0.8 > 0.2 > expert.alignment["noise"]
    assert SketchRegression.fit(
        models, targets, concepts, SketchConfig(("noise", "signal"), 8, 4, most_layers=1)
    ).config.layers == ("signal",)
    assert (expert.encode(models) * targets).sum(1).mean() > 0.9


def models_with_a_weak_signal() -> tuple[Factors, Tensor, Tensor, Tensor]:
    """Updates (200, 12, 10): strong noise in eight rows and columns, and one weak entry with the sign of a target."""
    torch.manual_seed(0)
    targets = (torch.rand(200, 1) < 0.5).float() * 2 - 1
    updates = torch.randn(200, 12, 10) * 0.01
    updates[:, :8, :8] += torch.randn(200, 8, 8)
    updates[:, 10, 9] += 0.3 * targets[:, 0]
    wide = torch.linalg.qr(torch.randn(12, 12))[0] @ updates @ torch.linalg.qr(torch.randn(10, 10))[0]
    return Factors.of_matrices(wide), wide, targets, torch.arange(200)


def test_directions_are_selected_by_the_targets() -> None:
    """Two of twelve: principal ones miss a weak signal; selected ones do not, and are those of the dense regression."""
    factors, updates, targets, concepts = models_with_a_weak_signal()
    rows = torch.arange(150)
    accuracy = {}
    for wide in (None, 12):
        config = SketchConfig(("layer",), 2, 2, quadratic=0.0, ridge=0.01, rank=1, wide=wide)
        expert = SketchRegression.fit({"layer": factors[rows]}, targets[rows], concepts[rows], config)
        accuracy[wide] = float(((expert.predict({"layer": factors[150:]}) > 0) == (targets[150:] > 0)).float().mean())
        assert expert.left["layer"].shape == (2, 12) and expert.right["layer"].shape == (10, 2)
        close(expert.left["layer"] @ expert.left["layer"].mT, torch.eye(2))
    assert accuracy[12] == 1.0 > 0.7 > accuracy[None]
    scaled = updates[rows] / updates[rows].flatten(1).norm(dim=1)[:, None, None]
    features = scaled.flatten(1) - scaled.flatten(1).mean(0)
    penalty = SELECTION_RIDGE * features.square().sum(1).mean()
    weight = torch.linalg.solve(
        features.mT @ features + penalty * torch.eye(120), features.mT @ (targets[rows] - targets[rows].mean(0))
    ).reshape(12, 10)
    used = torch.linalg.svd(weight).U[:, :2]
    torch.testing.assert_close((expert.left["layer"] @ used).abs(), torch.eye(2), atol=1e-2, rtol=0)


def test_a_missing_layer_counts_as_the_average() -> None:
    models, targets, concepts = two_layers()
    expert = SketchRegression.fit(models, targets, concepts, SketchConfig(("noise", "signal"), 8, 4))
    alone = expert.encode({"signal": models["signal"]})
    views = torch.cat([bilinear(models["signal"], expert.left["signal"], expert.right["signal"]).flatten(1)], 1)
    assert views.shape == (80, 32)
    assert (alone * targets).sum(1).mean() > 0.9


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that is created."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            self.numel = max(self.numel, tensor.numel())
        return result


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_in(part)


def test_no_tensor_of_the_size_of_a_layer_is_created() -> None:
    """A layer of 1280 x 1280, rank 16, through all views, a sketch and their gradients."""
    side, rank = 1280, 16
    torch.manual_seed(0)
    models = {"layer": Factors(torch.randn(2, rank, side), torch.randn(2, side, rank))}
    net = ProbeNet({"layer": (side, side)}, 8, ProbeConfig(("layer",), ALL_VIEWS, 128, 128, 16, standardise=True))
    left, right = torch.randn(24, side), torch.randn(side, 24)
    expert = SketchRegression(
        SketchConfig(("layer",)),
        {"layer": left},
        {"layer": right},
        {"layer": torch.zeros(876)},
        {"layer": torch.randn(876, 8)},
        torch.eye(8),
        {"layer": 1.0},
    )
    with LargestTensor() as largest:
        net.represent(models).sum().backward()
        expert.encode(models)
    encoder = net.layers[0].encoder.weight.numel()  # its gradient is the only larger tensor
    assert largest.numel <= encoder
    with LargestTensor() as largest, torch.inference_mode():
        net.represent(models)
        expert.encode(models)
    assert largest.numel < side * side / 4


def test_products_are_read_as_their_factors() -> None:
    """By sketches, spectra, familiarity and learned probes of every view."""
    updates, matrices = zip(*some_products(OUT, IN), strict=True)
    products, factors = Factors.stack(updates), Factors.of_matrices(torch.stack(matrices))
    assert isinstance(products, Products)
    assert (len(products), products.shape) == (len(factors), (OUT, IN))
    weights = torch.rand(len(products))
    close(output_spectrum(products, weights), output_spectrum(factors, weights))
    close(input_spectrum(products, weights), input_spectrum(factors, weights))
    close(energy(products), energy(factors))
    close(bilinear(products, torch.eye(OUT), torch.eye(IN)), torch.stack(matrices))
    close(bilinear(products[1:3], torch.eye(OUT), torch.eye(IN)), torch.stack(matrices)[1:3])
    close(products.to("cpu").up @ products.down, torch.stack(matrices))
    directions = torch.linalg.qr(torch.randn(OUT, 3))[0].mT
    close(captured_share(products, directions), captured_share(factors, directions))
    config = SketchConfig(("layer",), 4, 3)
    left, right = torch.randn(4, OUT), torch.randn(IN, 3)
    for first, second in zip(sketch(products, left, right, config), sketch(factors, left, right, config), strict=True):
        close(first, second)
    probe_config = ProbeConfig(("layer",), ALL_VIEWS, probes=4, projection=5, representation=6, standardise=True)
    net = ProbeNet({"layer": (OUT, IN)}, 3, probe_config).eval()
    close(net.represent({"layer": products}), net.represent({"layer": factors}))
