"""Losses of tiny random pipelines, compared with those of diffusers' training scripts, step by step."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler, FluxPipeline
from PIL import Image
from torch import Tensor

from loradex.app.drawing.errors import BadBase
from loradex.app.drawing.loaded_models import DiffusersBaseModel
from loradex.app.growing.denoiser import Conditions
from loradex.app.growing.diffusers_denoiser import DiffusersDenoiser
from loradex.app.growing.noise import Diffusion, schedule_of
from loradex.retrieval.errors import QueryError
from tests.app.drawing.original_layout import save_one_file
from tests.app.drawing.random_pipelines import random_pipeline, tiny_flux, v_scheduler
from tests.app.drawing.tiny_families import use_tiny_families

SIZE = 16
PROMPTS = ["a red cat", "a dog!", ""]
TIMES = torch.tensor([0.0, 0.4567, 0.9999])
KINDS = ("sd1", "sd2", "sd2-v", "sdxl", "sd3", "flux", "flux-guided")


# of diffusers and numpy 2, from the scheduler of SDXL
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield use_tiny_families(monkeypatch, tmp_path_factory.mktemp("configs"))


@pytest.fixture(scope="module")
def folder(configs: Path) -> Callable[[str], tuple[Any, Path]]:
    @cache
    def save(kind: str) -> tuple[Any, Path]:
        pipe = tiny_flux(kind == "flux-guided") if "flux" in kind else random_pipeline(kind.removesuffix("-v"), configs)
        if kind == "sd2-v":
            pipe.scheduler = v_scheduler()
        pipe.set_progress_bar_config(disable=True)
        pipe.save_pretrained(configs / kind)
        return pipe, configs / kind

    return save


def load(path: Path, size: int | None = SIZE) -> DiffusersDenoiser:
    return DiffusersDenoiser.load(path, "cpu", torch.float32, size)


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)) for _ in range(count)]


def samples() -> tuple[Tensor, Tensor]:
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    return latents, noise


@torch.no_grad()
def loss_of_training_scripts(kind: str, pipe: Any, latents: Tensor, noise: Tensor) -> Tensor:
    """Written as diffusers' examples are, with the scheduler's own functions."""
    if kind in ("sd1", "sd2", "sd2-v", "sdxl"):
        scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        steps = (TIMES * scheduler.config.num_train_timesteps).long()
        noisy = scheduler.add_noise(latents, noise, steps)
        target = scheduler.get_velocity(latents, noise, steps) if kind == "sd2-v" else noise
        if kind == "sdxl":
            states, _, pooled, _ = pipe.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
            ids = torch.tensor([[float(SIZE), SIZE, 0, 0, SIZE, SIZE]] * 3)
            added = {"text_embeds": pooled, "time_ids": ids}
            predicted = pipe.unet(noisy, steps, states, added_cond_kwargs=added).sample
        else:
            tokens = pipe.tokenizer(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            states = pipe.text_encoder(tokens.input_ids)[0]
            predicted = pipe.unet(noisy, steps, states).sample
        return F.mse_loss(predicted, target, reduction="none").mean((1, 2, 3))
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)
    count = scheduler.config.num_train_timesteps
    from_most_noise = count - 1 - (TIMES * count).long()
    timesteps = scheduler.timesteps[from_most_noise]
    sigmas = scheduler.sigmas[from_most_noise].reshape(-1, 1, 1, 1)
    noisy = (1.0 - sigmas) * latents + sigmas * noise
    if kind == "sd3":
        states, _, pooled, _ = pipe.encode_prompt(PROMPTS, PROMPTS, PROMPTS, do_classifier_free_guidance=False)
        predicted = pipe.transformer(noisy, states, pooled, timesteps).sample
    else:
        states, pooled, text_ids = pipe.encode_prompt(PROMPTS, None)
        ids = FluxPipeline._prepare_latent_image_ids(3, 4, 4, "cpu", torch.float32)
        predicted = pipe.transformer(
            FluxPipeline._pack_latents(noisy, 3, 4, 8, 8),
            states,
            pooled,
            timesteps / 1000,
            ids,
            text_ids,
            torch.ones(3) if kind == "flux-guided" else None,
        ).sample
        predicted = FluxPipeline._unpack_latents(predicted, SIZE, SIZE, pipe.vae_scale_factor)
    return F.mse_loss(predicted, noise - latents, reduction="none").mean((1, 2, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_the_training_scripts(kind: str, folder: Callable[[str], tuple[Any, Path]]) -> None:
    pipe, path = folder(kind)
    denoiser, (latents, noise) = load(path), samples()
    conditions = denoiser.encode_prompts(PROMPTS)
    losses = denoiser.losses(latents, conditions, TIMES, noise)
    torch.testing.assert_close(losses, loss_of_training_scripts(kind, pipe, latents, noise), rtol=1e-4, atol=1e-5)
    alone = denoiser.losses(latents[1:2], conditions.select(torch.tensor([1])), TIMES[1:2], noise[1:2])
    torch.testing.assert_close(alone, losses[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3"])
def test_one_file_gives_the_same_as_the_folder(kind: str, folder: Callable[[str], tuple[Any, Path]]) -> None:
    pipe, path = folder(kind)
    one = load(save_one_file(pipe, kind, path.with_name(f"{kind}.safetensors")), None)
    many = load(path, None)
    assert one.size == many.size == 16
    latents, noise = samples()
    losses = [each.losses(latents, each.encode_prompts(PROMPTS), TIMES, noise) for each in (one, many)]
    assert torch.equal(*losses)
    assert torch.equal(one.encode_pictures(pictures(2)), many.encode_pictures(pictures(2)))


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3", "flux"])
def test_latents_and_drawings_are_those_of_the_pipeline(kind: str, folder: Callable[[str], tuple[Any, Path]]) -> None:
    pipe, path = folder(kind)
    denoiser = load(path)
    given = pictures(2)
    with torch.no_grad():
        pixels = pipe.image_processor.preprocess(given)
        mean = pipe.vae.encode(pixels).latent_dist.mean
    expected = (mean - (pipe.vae.config.shift_factor or 0)) * pipe.vae.config.scaling_factor
    torch.testing.assert_close(denoiser.encode_pictures(given), expected, rtol=1e-4, atol=1e-5)
    shares: list[float] = []
    drawn = denoiser.draw(PROMPTS[:2], [5, 6], shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) == len(denoiser.pipeline.scheduler.timesteps) >= denoiser.steps == 20
    with torch.no_grad():
        for number, picture in enumerate(drawn):
            generator = torch.Generator().manual_seed(5 + number)
            (alone,) = pipe(
                PROMPTS[number], num_inference_steps=20, height=SIZE, width=SIZE, generator=generator
            ).images
            np.testing.assert_allclose(np.asarray(picture, int), np.asarray(alone, int), atol=1)


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3", "flux"])
def test_hooks_get_the_gradients_of_frozen_weights(kind: str, folder: Callable[[str], tuple[Any, Path]]) -> None:
    pipe, path = folder(kind)
    denoiser, (latents, noise) = load(path), samples()
    name, layer = next(
        (name, module)
        for name, module in denoiser.module.named_modules()
        if name.endswith("attn2.to_k") or name.endswith("attn.to_k")
    )
    outer: list[Tensor] = []

    def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        states = inputs[0].detach()
        with_graph = output + torch.zeros((), requires_grad=True)
        with_graph.register_hook(lambda gradient: outer.append(gradient.flatten(0, -2).T @ states.flatten(0, -2)))
        return with_graph

    handle = layer.register_forward_hook(hook)
    denoiser.losses(latents, denoiser.encode_prompts(PROMPTS), TIMES, noise).sum().backward()
    handle.remove()
    assert all(parameter.grad is None for parameter in denoiser.module.parameters())
    layer.weight.requires_grad_(True)
    denoiser.module.disable_gradient_checkpointing()
    denoiser.losses(latents, denoiser.encode_prompts(PROMPTS), TIMES, noise).sum().backward()
    assert len(outer) == 1 and float(outer[0].norm()) > 0, name
    torch.testing.assert_close(outer[0], layer.weight.grad, rtol=1e-3, atol=1e-6)


def test_pictures_are_cropped_and_native_sizes_known(folder: Callable[[str], tuple[Any, Path]]) -> None:
    denoiser = load(folder("sd1")[1], None)
    assert denoiser.size == 16
    (square,) = pictures(1)
    wide = Image.new("RGBA", (3 * SIZE, SIZE))
    wide.paste(square, (SIZE, 0))
    assert torch.equal(denoiser.encode_pictures([wide]), denoiser.encode_pictures([square]))
    assert load(folder("flux")[1], None).size == 256
    with pytest.raises(QueryError, match="expected a multiple of 4 pixels, found 18"):
        load(folder("sd1")[1], 18)


def test_released_parts_are_not_needed_for_losses(folder: Callable[[str], tuple[Any, Path]]) -> None:
    denoiser, (latents, noise) = load(folder("sdxl")[1]), samples()
    conditions = denoiser.encode_prompts(PROMPTS)
    before = denoiser.losses(latents, conditions, TIMES, noise)
    denoiser.release_drawing()
    assert denoiser.loaded.components.keys() == {"denoiser"}
    assert torch.equal(denoiser.losses(latents, conditions, TIMES, noise), before)
    with pytest.raises(BadBase):
        denoiser.encode_prompts(PROMPTS)


def test_half_precision_is_near(folder: Callable[[str], tuple[Any, Path]]) -> None:
    latents, noise = samples()
    full = load(folder("sdxl")[1])
    half = DiffusersDenoiser.load(folder("sdxl")[1], "cpu", torch.bfloat16, SIZE)
    losses = [each.losses(latents, each.encode_prompts(PROMPTS), TIMES, noise) for each in (full, half)]
    assert losses[1].dtype == torch.float32 and half.encode_pictures(pictures(1)).dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=0.05, atol=0.05)


def test_models_of_another_kind_are_refused_in_one_line(
    folder: Callable[[str], tuple[Any, Path]], configs: Path
) -> None:
    _, path = folder("sd1")
    loaded = DiffusersBaseModel(path, "cpu")
    loaded.components["denoiser"].register_to_config(in_channels=9)
    with pytest.raises(BadBase, match="found one that takes 9 channels") as caught:
        DiffusersDenoiser(loaded)
    assert "\n" not in str(caught.value)
    loaded.components["denoiser"].register_to_config(in_channels=4)
    loaded.pipeline.scheduler = DDIMScheduler(prediction_type="other")
    with pytest.raises(BadBase, match="found its scheduler DDIMScheduler"):
        DiffusersDenoiser(loaded)
    loaded.components["denoiser"].register_to_config(addition_embed_type="image")
    with pytest.raises(BadBase, match="found a UNet2DConditionModel"):
        DiffusersDenoiser(loaded)
    refiner = DiffusersBaseModel(folder("sdxl")[1], "cpu")
    refiner.release("text_encoder")
    with pytest.raises(BadBase, match="found a U-Net of SDXL with one text encoder"):
        DiffusersDenoiser(refiner)


def test_samples_are_predicted_and_times_at_the_ends() -> None:
    schedule = schedule_of(DDIMScheduler(prediction_type="sample"))
    assert isinstance(schedule, Diffusion)
    latents, noise = samples()
    noisy, steps, target = schedule.mix(latents, noise, TIMES)
    assert steps.tolist() == [0, 456, 999] and torch.equal(target, latents)
    torch.testing.assert_close(noisy, DDPMScheduler().add_noise(latents, noise, steps))
    assert Conditions({"a": torch.arange(3)}).select(torch.tensor([2, 0])).tensors["a"].tolist() == [2, 0]
