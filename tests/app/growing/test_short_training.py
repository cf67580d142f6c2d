"""Short trainings of several LoRAs at once, against each trained alone by torch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loradex.app.growing.short_training import TrainingRecipe, train_loras

RECIPE = TrainingRecipe(steps=12, samples=3, rate=0.05, rank=2)
WIDTH, OUT, TOKENS = 6, 4, 5


def data_of(concept: int) -> tuple[Tensor, Tensor]:
    """Inputs (steps, samples, tokens, in) and targets of a concept."""
    generator = torch.Generator().manual_seed(100 + concept)
    inputs = torch.randn(RECIPE.steps, RECIPE.samples, TOKENS, WIDTH, generator=generator)
    return inputs, torch.randn(RECIPE.steps, RECIPE.samples, TOKENS, OUT, generator=generator)


def new_layer() -> nn.Linear:
    """A frozen layer."""
    torch.manual_seed(0)
    return nn.Linear(WIDTH, OUT).requires_grad_(False)


def trained_alone(concept: int) -> Tensor:
    """The update (out, in) of one concept, by a training loop of its own."""
    layer, (inputs, targets) = new_layer(), data_of(concept)
    start = 2 * torch.rand(RECIPE.rank, WIDTH, generator=torch.Generator().manual_seed(concept)) - 1
    down = nn.Parameter(start / WIDTH**0.5)
    up = nn.Parameter(torch.zeros(OUT, RECIPE.rank))
    adam = torch.optim.Adam([down, up], lr=RECIPE.rate, betas=(0.9, 0.99))
    for step in range(RECIPE.steps):
        adam.param_groups[0]["lr"] = RECIPE.rate * min(RECIPE.steps - step, 1)
        output = layer(inputs[step]) + F.linear(F.linear(inputs[step], down), up)
        loss = (output - targets[step]).square().mean((1, 2)).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return (up @ down).detach()


def test_each_trains_as_if_alone() -> None:
    """Three LoRAs in one batch become what each becomes alone."""
    layer, concepts = new_layer(), [3, 7, 8]
    data = [data_of(concept) for concept in concepts]

    def loss(step: int) -> Tensor:
        inputs = torch.cat([inputs[step] for inputs, _ in data])
        targets = torch.cat([targets[step] for _, targets in data])
        return (layer(inputs) - targets).square().mean((1, 2))

    steps = []
    generators = [torch.Generator().manual_seed(concept) for concept in concepts]
    updates = train_loras({"layer": layer}, RECIPE, loss, generators, lambda: steps.append(1))
    assert len(steps) == RECIPE.steps
    assert not layer._forward_hooks  # noqa: SLF001
    for concept, update in zip(concepts, updates["layer"], strict=True):
        torch.testing.assert_close(update.up @ update.down, trained_alone(concept), rtol=1e-3, atol=1e-5)
