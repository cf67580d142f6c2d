"""Growing from pipelines of diffusers: gradients through checkpointed blocks, and files with the right layers."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from loradex.app.drawing.lora_hooks import DENOISER, find_module
from loradex.app.growing.diffusers_denoiser import DiffusersDenoiser
from loradex.app.growing.folder import Concept
from loradex.app.growing.gradients import GradientSketch, collect_gradients
from loradex.app.growing.layers import linear_layers
from loradex.app.growing.lora_growing import LoraRecipe, grow_loras
from loradex.retrieval.lora import LoraFile
from tests.app.drawing.random_pipelines import random_pipeline, tiny_flux
from tests.app.drawing.tiny_families import use_tiny_families

SIZE = 16
KINDS = {"sd1": "unet", "sdxl": "unet", "sd3": "transformer", "flux": "transformer"}

# of diffusers and numpy 2, from the scheduler of SDXL
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def denoiser_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], DiffusersDenoiser]]:
    """Loads a tiny random pipeline as a denoiser."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        configs = use_tiny_families(monkeypatch, tmp_path_factory.mktemp("configs"))

        @cache
        def load(kind: str) -> DiffusersDenoiser:
            pipe = tiny_flux(True) if kind == "flux" else random_pipeline(kind, configs)
            pipe.save_pretrained(configs / kind)
            return DiffusersDenoiser.load(configs / kind, "cpu", torch.float32, SIZE)

        yield load


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_weights(kind: str, denoiser_of: Callable[[str], DiffusersDenoiser]) -> None:
    """Blocks are computed again in the backward pass, as memory asks; each gradient counts once."""
    denoiser = denoiser_of(kind)
    layers = linear_layers(denoiser.module)
    latents = denoiser.encode_pictures([Image.new("RGB", (SIZE, SIZE), "red")]).expand(2, -1, -1, -1)
    conditions = denoiser.encode_prompts(["a picture"]).select(torch.zeros(2, dtype=torch.long))
    times, noise = torch.tensor([0.2, 0.7]), torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    sketches = {name: GradientSketch(layer, 1, 64, generator) for name, layer in layers.items()}
    with collect_gradients(sketches, layers):
        denoiser.losses(latents, conditions, times, noise).sum().backward()
    for layer in layers.values():
        layer.weight.requires_grad_(True)
    denoiser.losses(latents, conditions, times, noise).sum().backward()
    for name, layer in layers.items():
        (update,) = sketches[name].updates()
        # a projection of the text may have no gradient at all, such as in the last block of SD 3
        expected = torch.zeros_like(layer.weight) if layer.weight.grad is None else -layer.weight.grad
        torch.testing.assert_close(
            update.up @ update.down, expected, rtol=2e-3, atol=1e-6 + 1e-3 * float(expected.abs().max())
        )
        layer.weight.requires_grad_(False)
        layer.weight.grad = None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [0, 2])
def test_files_have_the_layers_of_the_base(
    kind: str, steps: int, denoiser_of: Callable[[str], DiffusersDenoiser], tmp_path: Path
) -> None:
    """A grown file is read as a LoRA, and each of its layers is one of the base model's, in its shape."""
    denoiser = denoiser_of(kind)
    path = tmp_path / "picture.png"
    Image.new("RGB", (SIZE, SIZE), "green").save(path)
    concept, condition = Concept("green", tmp_path / "green", (path,)), denoiser.encode_prompts(["a picture"])
    layers = linear_layers(denoiser.module)
    (updates,) = grow_loras(denoiser, layers, [concept], condition, LoraRecipe(steps, 2, 2, 2))
    concept.save_lora(updates, KINDS[kind], {})
    lora = LoraFile.open(concept.weights)
    assert len(lora.layers) == len(layers)
    for name, shape in lora.shapes.items():
        module = find_module({DENOISER: denoiser.module}, name)
        assert module is not None, name
        assert tuple(module.weight.shape) == shape
