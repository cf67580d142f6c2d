"""Short trainings of LoRAs, for several concepts at once: each group of samples passes through its own factors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from loradex.retrieval.lora.update import LayerUpdate

BETAS: Final = (0.9, 0.99)
FALLING_SHARE: Final = 0.1  # of the steps, over which the learning rate falls to zero at the end


@dataclass(frozen=True, slots=True)
class TrainingRecipe:
    """How LoRAs are trained.

    Attributes:
        steps: of Adam.
        samples: of each LoRA in a step.
        rate: the learning rate.
        rank: of the LoRAs.
    """

    steps: int
    samples: int
    rate: float
    rank: int


class GroupedLora:
    """A LoRA of one layer for each concept.

    Attributes:
        down: (concepts, rank, in), at first uniform within 1 / sqrt(in), as in peft.
        up: (concepts, out, rank), at first zero.
    """

    def __init__(self, layer: nn.Linear, rank: int, generators: Sequence[torch.Generator]) -> None:
        """Make the factors, in float32 on the layer's device; there is a generator for each concept."""
        (out, width), device = layer.weight.shape, layer.weight.device
        start = torch.stack([2 * torch.rand(rank, width, generator=each) - 1 for each in generators]) * width**-0.5
        self.down = start.to(device).requires_grad_()
        self.up = torch.zeros(len(generators), out, rank, device=device, requires_grad=True)

    def hook(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Add each concept's update to its part of the output; a forward hook."""
        rows = inputs[0].reshape(len(self.down), -1, inputs[0].shape[-1])
        return output + (rows @ self.down.mT.to(rows) @ self.up.mT.to(rows)).reshape(output.shape)

    def updates(self) -> list[LayerUpdate]:
        """The update of each concept."""
        return [
            LayerUpdate(down, up) for down, up in zip(self.down.detach().cpu(), self.up.detach().cpu(), strict=True)
        ]


def train_loras(
    layers: Mapping[str, nn.Linear],
    recipe: TrainingRecipe,
    loss: Callable[[int], Tensor],
    generators: Sequence[torch.Generator],
    on_step: Callable[[], None] = lambda: None,
) -> dict[str, list[LayerUpdate]]:
    """Train a LoRA for each concept.

    Args:
        layers: those that take updates, by name.
        recipe: how.
        loss: of the samples of a step (concepts * samples,), those of a concept side by side.
        generators: of the starts, one for each concept.
        on_step: called after each step.

    Returns:
        The updates of each layer, by concept.
    """
    loras = {name: GroupedLora(layer, recipe.rank, generators) for name, layer in layers.items()}
    factors = [factor for lora in loras.values() for factor in (lora.down, lora.up)]
    adam = torch.optim.Adam(factors, lr=recipe.rate, betas=BETAS, foreach=True)
    falling = max(round(FALLING_SHARE * recipe.steps), 1)
    with attached(loras, layers):
        for step in range(recipe.steps):
            for group in adam.param_groups:
                group["lr"] = recipe.rate * min((recipe.steps - step) / falling, 1.0)
            # the sum over concepts of each one's mean: groups share no factor, so each trains on its own loss
            (loss(step).sum() / recipe.samples).backward()
            adam.step()
            adam.zero_grad(set_to_none=True)
            on_step()
    return {name: lora.updates() for name, lora in loras.items()}


@contextmanager
def attached(loras: Mapping[str, GroupedLora], layers: Mapping[str, nn.Linear]) -> Iterator[None]:
    """Within, the layers have their LoRAs."""
    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(loras[name].hook).remove)
        yield
