"""Pictures of concepts -> their LoRAs, by gradients or short trainings, some concepts at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from loradex.app.growing.denoiser import Conditions, Denoiser
from loradex.app.growing.folder import Concept
from loradex.app.growing.gradients import GradientSketch, collect_gradients
from loradex.app.growing.short_training import TrainingRecipe, train_loras
from loradex.retrieval.lora.update import LayerUpdate

GRADIENT_RANK: Final = 16
TRAINED_RANK: Final = 4
GRADIENT_RIDGE: Final = 1.0  # of an expert that is fitted to gradients, which are noisier than trained LoRAs
GRADIENT_SAMPLES: Final = 48  # of a concept
STEP_SAMPLES: Final = 2  # of a LoRA in each step
RATE: Final = 5e-3  # of Adam, for factors that start as in peft


@dataclass(frozen=True, slots=True)
class LoraRecipe:
    """How the LoRAs of concepts are made.

    Attributes:
        steps: of training; 0 takes the gradient at the base model's weights.
        samples: noisy pictures of each concept, in a step or in all for a gradient.
        rank: of the LoRAs at most.
        batch: noisy pictures in memory at once.
        seed: of noise and starts.
    """

    steps: int
    samples: int
    rank: int
    batch: int
    seed: int = 0

    @property
    def training(self) -> TrainingRecipe:
        """How the LoRAs are trained."""
        return TrainingRecipe(self.steps, self.samples, RATE, self.rank)

    @property
    def concepts_at_once(self) -> int:
        """How many concepts share a batch."""
        return max(self.batch // self.samples, 1)

    @property
    def samples_in_all(self) -> int:
        """Noisy pictures of a concept in all."""
        return self.samples * max(self.steps, 1)


class NoisyPictures:
    """The noisy pictures of some concepts, evenly spread over their pictures and over the noise schedule."""

    def __init__(
        self,
        denoiser: Denoiser,
        latents: Sequence[Tensor],
        condition: Conditions,
        recipe: LoraRecipe,
        generators: Sequence[torch.Generator],
    ) -> None:
        """Choose pictures and times.

        Args:
            denoiser: of the base model.
            latents: (pictures, ...) of each concept.
            condition: of the one prompt.
            recipe: how many there are.
            generators: one for each concept, so that a concept's do not depend on those beside it.
        """
        total = recipe.samples_in_all
        self.denoiser, self.latents, self.condition, self.generators = denoiser, latents, condition, generators
        self.pictures = [torch.randperm(total, generator=each) % len(of) for each, of in self._each()]
        self.times = [
            (torch.randperm(total, generator=each) + torch.rand(total, generator=each)) / total for each in generators
        ]

    def _each(self) -> Iterator[tuple[torch.Generator, Tensor]]:
        return zip(self.generators, self.latents, strict=True)

    def losses(self, start: int, end: int) -> Tensor:
        """The losses of the samples from ``start`` to ``end`` of each concept, those of a concept side by side."""
        clean = torch.cat(
            [
                latents[pictures[start:end].to(latents.device)]
                for latents, pictures in zip(self.latents, self.pictures, strict=True)
            ]
        )
        shape = end - start, *clean.shape[1:]
        noise = torch.cat([torch.randn(shape, generator=each) for each in self.generators]).to(clean)
        times = torch.cat([times[start:end] for times in self.times]).clamp(max=1 - 1e-6).to(clean.device)
        conditions = self.condition.select(torch.zeros(len(clean), dtype=torch.long))
        return self.denoiser.losses(clean, conditions, times, noise)


def grow_loras(
    denoiser: Denoiser,
    layers: Mapping[str, nn.Linear],
    concepts: Sequence[Concept],
    condition: Conditions,
    recipe: LoraRecipe,
    on_samples: Callable[[int], None] = lambda samples: None,
) -> list[dict[str, LayerUpdate]]:
    """Make a LoRA of each of some concepts, by layer.

    Args:
        denoiser: of the base model.
        layers: of the denoiser that take updates.
        concepts: at most ``recipe.concepts_at_once``, with their pictures.
        condition: of the one prompt that all LoRAs are trained with; it names nothing.
        recipe: how.
        on_samples: called with the number of noisy pictures that were done since the last call.

    Raises:
        QueryError: a picture cannot be read.
    """
    seeds = [crc32(f"{recipe.seed + each.first} {each.word}".encode()) for each in concepts]
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    latents = [denoiser.encode_pictures(with_mirrored(each.read_pictures())) for each in concepts]
    samples = NoisyPictures(denoiser, latents, condition, recipe, generators)
    make = trained_updates if recipe.steps else gradient_updates
    by_layer = make(layers, samples, recipe, on_samples)
    return [{name: updates[row] for name, updates in by_layer.items()} for row in range(len(concepts))]


def trained_updates(
    layers: Mapping[str, nn.Linear], samples: NoisyPictures, recipe: LoraRecipe, on_samples: Callable[[int], None]
) -> dict[str, list[LayerUpdate]]:
    """The updates of short trainings, of each layer."""
    each = recipe.samples

    def loss(step: int) -> Tensor:
        return samples.losses(step * each, (step + 1) * each)

    return train_loras(
        layers, recipe.training, loss, samples.generators, lambda: on_samples(each * len(samples.latents))
    )


def gradient_updates(
    layers: Mapping[str, nn.Linear], samples: NoisyPictures, recipe: LoraRecipe, on_samples: Callable[[int], None]
) -> dict[str, list[LayerUpdate]]:
    """Minus the gradients of some concepts at the base model's weights, of each layer."""
    count, basis = len(samples.latents), torch.Generator().manual_seed(recipe.seed)
    sketches = {name: GradientSketch(layer, count, recipe.rank, basis) for name, layer in layers.items()}
    at_once = max(recipe.batch // count, 1)
    with collect_gradients(sketches, layers):
        for start in range(0, recipe.samples, at_once):
            end = min(start + at_once, recipe.samples)
            samples.losses(start, end).sum().backward()
            on_samples((end - start) * count)
    return {name: sketch.updates() for name, sketch in sketches.items()}


def with_mirrored(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Pictures, and each mirrored, as most trainers of LoRAs use them."""
    return [*pictures, *(ImageOps.mirror(picture) for picture in pictures)]
