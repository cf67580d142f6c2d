"""LoRAs of concepts, with a base model of the miniature."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from loradex.app.growing.folder import Concept
from loradex.app.growing.layers import linear_layers
from loradex.app.growing.lora_growing import LoraRecipe, grow_loras
from loradex.app.growing.miniature_denoiser import MiniatureDenoiser
from loradex.app.paths import TREES
from loradex.retrieval.errors import QueryError

LAYERS = "attn2.to_v", "attn1.to_q"


@pytest.fixture(scope="module")
def denoiser() -> MiniatureDenoiser:
    """The base model mini-b."""
    return MiniatureDenoiser(TREES / "mini-b")


def concepts_of(folder: Path, *words: str) -> list[Concept]:
    """Concepts with two pictures in plain colours each, the same for the same word."""
    concepts = []
    for word in words:
        paths = tuple(folder / f"{word}-{number}.png" for number in range(2))
        for number, path in enumerate(paths):
            colour = tuple(
                torch.randint(256, (3,), generator=torch.Generator().manual_seed(len(word) + number)).tolist()
            )
            Image.new("RGB", (64, 64), colour).save(path)
        concepts.append(Concept(word, folder / word, paths))
    return concepts


@pytest.mark.parametrize("recipe", [LoraRecipe(0, 6, 4, 6), LoraRecipe(3, 2, 4, 6)], ids=["gradient", "training"])
def test_a_concept_does_not_depend_on_those_beside_it(
    denoiser: MiniatureDenoiser, tmp_path: Path, recipe: LoraRecipe
) -> None:
    """A LoRA is the same, but for rounding, whatever concepts are grown beside it; so a run can go on anywhere."""
    layers = linear_layers(denoiser.module, LAYERS)
    condition = denoiser.encode_prompts(["an icon"])
    concepts = concepts_of(tmp_path, "one", "three", "eleven")
    together = grow_loras(denoiser, layers, concepts, condition, recipe)
    (alone,) = grow_loras(denoiser, layers, concepts[1:2], condition, recipe)
    (other, *_) = together
    for layer in layers:
        beside, single, first = (each[layer].up @ each[layer].down for each in (together[1], alone, other))
        assert float((beside - single).norm()) < 0.02 * float(single.norm())
        assert float((first - single).norm()) > 0.1 * float(single.norm())


def test_a_gradient_lowers_the_loss(denoiser: MiniatureDenoiser, tmp_path: Path) -> None:
    """A small step along the update of a concept makes its pictures likelier, and a step against it less likely."""
    layers = linear_layers(denoiser.module)
    condition = denoiser.encode_prompts(["an icon"])
    (concept,) = concepts_of(tmp_path, "seven")
    (updates,) = grow_loras(denoiser, layers, [concept], condition, LoraRecipe(0, 16, 16, 16))
    latents = denoiser.encode_pictures(concept.read_pictures())[:1].expand(16, -1, -1, -1)
    generator = torch.Generator().manual_seed(0)
    times, noise = (torch.arange(16) + 0.5) / 16, torch.randn(latents.shape, generator=generator)
    conditions = condition.select(torch.zeros(16, dtype=torch.long))

    def loss(size: float) -> float:
        with torch.no_grad():
            for name, layer in layers.items():
                layer.weight += size * updates[name].up @ updates[name].down
            value = float(denoiser.losses(latents, conditions, times, noise).mean())
            for name, layer in layers.items():
                layer.weight -= size * updates[name].up @ updates[name].down
        return value

    assert loss(1e-3) < loss(0.0) < loss(-1e-3)


def test_no_layers(denoiser: MiniatureDenoiser) -> None:
    """Ends of names that no layer has are refused, with some that there are."""
    with pytest.raises(QueryError, match=r"--layers: expected linear layers .* found none; its first are"):
        linear_layers(denoiser.module, ("nothing",))
