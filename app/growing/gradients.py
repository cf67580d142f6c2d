"""Gradients of a denoising loss as low-rank updates, for several concepts at once, with no matrix of a layer's size.

The gradient of a linear layer is a sum of outer products over tokens, g xᵀ. It is kept as two products with random
matrices, G Ω (out, k) and Ψ G (l, in), which are sums over tokens too, and cut to its leading singular directions at
the end (Tropp, Yurtsever, Udell and Cevher 2017, "Practical sketching algorithms for low-rank matrix approximation",
algorithms 4 and 7). Where a side has at most k numbers, that is exact.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from loradex.retrieval.lora.update import LayerUpdate

OVERSAMPLING: Final = 3  # k is so many times the rank that is kept, and l twice k


class GradientSketch:
    """The gradient of one layer for some concepts, as it is summed up."""

    def __init__(self, layer: nn.Linear, concepts: int, rank: int, generator: torch.Generator) -> None:
        """Start with zero; ``rank`` is what will be kept at most."""
        out, width = layer.weight.shape
        device = layer.weight.device
        wide = min(OVERSAMPLING * rank, out, width)
        tall = min(2 * wide, out)

        def random_basis(size: int, count: int) -> Tensor:
            """A random orthonormal basis (size, count)."""
            normal = torch.randn(size, count, generator=generator)
            return torch.linalg.qr(normal).Q.to(device)

        self.rank, self.concepts = rank, concepts
        self.right, self.left = random_basis(width, wide), random_basis(out, tall)
        self.columns = torch.zeros(concepts, out, wide, device=device)
        self.rows = torch.zeros(concepts, tall, width, device=device)

    def add(self, inputs: Tensor, gradient: Tensor) -> None:
        """Add the outer products of a pass: inputs (concepts * samples, ..., in), gradients of the output likewise."""
        inputs = inputs.reshape(self.concepts, -1, inputs.shape[-1]).float()
        gradient = gradient.reshape(self.concepts, -1, gradient.shape[-1]).float()
        self.columns.baddbmm_(gradient.mT, inputs @ self.right)
        self.rows.baddbmm_((gradient @ self.left).mT, inputs)

    def updates(self) -> list[LayerUpdate]:
        """Minus the gradient of each concept, cut to its leading singular directions."""
        basis = torch.linalg.qr(self.columns).Q  # (concepts, out, wide)
        core = torch.linalg.lstsq(self.left.mT @ basis, self.rows).solution  # (concepts, wide, in)
        left, values, right = torch.linalg.svd(core, full_matrices=False)
        rank = min(self.rank, values.shape[-1])
        root = values[:, :rank].sqrt()
        up = -(basis @ left[..., :rank]) * root[:, None]
        down = right[:, :rank] * root[..., None]
        return [LayerUpdate(down[row].cpu(), up[row].cpu()) for row in range(self.concepts)]


@contextmanager
def collect_gradients(sketches: Mapping[str, GradientSketch], layers: Mapping[str, nn.Linear]) -> Iterator[None]:
    """Within, every backward pass adds the gradients of the layers to their sketches; no weight needs a gradient."""
    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(gradient_hook(sketches[name])).remove)
        yield


def gradient_hook(sketch: GradientSketch) -> Any:
    """Return a forward hook that gives a layer's input and the gradient of its output to a sketch."""

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        states = inputs[0].detach()
        with_graph = output + torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True)
        with_graph.register_hook(lambda gradient: sketch.add(states, gradient))
        return with_graph

    return hook
