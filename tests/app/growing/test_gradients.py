"""Gradients as low-rank updates, against gradients of weights by autograd."""

import pytest
import torch
from torch import Tensor, nn

from loradex.app.growing.gradients import GradientSketch, collect_gradients
from loradex.retrieval.lora.update import LayerUpdate


class Attention(nn.Module):
    """Two linear layers, the second on what the first gives."""

    def __init__(self, width: int, out: int) -> None:
        """Make frozen layers."""
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(width, out), nn.Linear(out, out, bias=False)
        self.requires_grad_(False)

    def forward(self, states: Tensor) -> Tensor:
        """Map (n, tokens, width) to (n, tokens, out)."""
        return self.second(torch.tanh(self.first(states)))


def sketches_of(model: Attention, states: Tensor, rank: int, passes: int = 1) -> dict[str, list[LayerUpdate]]:
    """The updates of concepts (concepts, samples, tokens, width), collected in some passes."""
    layers = {"first": model.first, "second": model.second}
    generator = torch.Generator().manual_seed(0)
    sketches = {name: GradientSketch(layer, len(states), rank, generator) for name, layer in layers.items()}
    with collect_gradients(sketches, layers):
        for part in states.chunk(passes, 1):
            model(part.flatten(0, 1)).square().sum().backward()
    assert not model.first._forward_hooks  # noqa: SLF001
    return {name: sketch.updates() for name, sketch in sketches.items()}


def dense_gradient(model: Attention, states: Tensor, layer: nn.Linear) -> Tensor:
    """The gradient (out, in) of a layer's weight for one concept (samples, tokens, width)."""
    layer.weight.requires_grad_(True)
    model(states).square().sum().backward()
    gradient = layer.weight.grad
    layer.weight.requires_grad_(False)
    layer.weight.grad = None
    assert gradient is not None
    return gradient


@pytest.mark.parametrize("passes", [1, 3])
def test_exact_where_a_side_is_small(passes: int) -> None:
    """With at least as many random directions as a side has numbers, an update is the best one of its rank."""
    model, states = Attention(20, 12), torch.randn(3, 6, 5, 20, generator=torch.Generator().manual_seed(1))
    updates = sketches_of(model, states, rank=4, passes=passes)
    for name, layer in {"first": model.first, "second": model.second}.items():
        for concept in range(3):
            gradient = dense_gradient(model, states[concept], layer)
            left, values, right = torch.linalg.svd(gradient)
            best = -(left[:, :4] * values[:4]) @ right[:4]
            update = updates[name][concept]
            assert update.rank == 4
            torch.testing.assert_close(update.up @ update.down, best, rtol=1e-3, atol=1e-3 * float(values[0]))


def test_near_the_best_in_wide_layers() -> None:
    """In a layer that is wider than the sketch, the error is little more than that of the best update of its rank."""
    model = Attention(160, 120)
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(2, 8, 4, 24, generator=generator) @ torch.randn(24, 160, generator=generator)
    (update, _) = sketches_of(model, states, rank=8)["first"]
    gradient = -dense_gradient(model, states[0], model.first)
    left, values, right = torch.linalg.svd(gradient)
    least = float(values[8:].norm())
    assert least <= float((update.up @ update.down - gradient).norm()) <= 1.25 * least


def test_nothing_without_gradients() -> None:
    """Passes without gradients, such as a drawing, add nothing."""
    model, generator = Attention(8, 8), torch.Generator().manual_seed(0)
    sketch = GradientSketch(model.first, 1, 2, generator)
    with collect_gradients({"first": sketch}, {"first": model.first}), torch.no_grad():
        model(torch.randn(1, 2, 8))
    assert not sketch.columns.any()
