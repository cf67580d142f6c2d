"""LoRAs trained in one batch act as the same LoRAs loaded by diffusers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file

from loradex.app.miniature.pipeline import MiniaturePipeline, Upsampler, from_latents, image_grid, to_latents
from loradex.retrieval.lora import LoraFile
from scripts.miniature.base_models import BaseModelConfig, new_scheduler, new_unet, stratified_timesteps
from scripts.miniature.fleet import TARGETS, GroupedAdam, GroupedLora, new_factors

CONFIG = BaseModelConfig("test", side=8, widths=(32, 32), heads=(2, 2), seed=0, steps=1, broad_steps=1)
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def pipeline() -> MiniaturePipeline:
    torch.manual_seed(0)
    return MiniaturePipeline(
        Upsampler(width=8, depth=1), new_unet(CONFIG).eval(), DDIMScheduler.from_config(new_scheduler().config)
    )


def test_from_latents_inverts_to_latents() -> None:
    small = torch.rand(2, 3, 32, 32)
    assert to_latents(small, 8).shape == (2, 48, 8, 8)
    torch.testing.assert_close(from_latents(to_latents(small, 8)), small)


def test_diffusers_adds_the_same_update_that_the_fleet_trained(tmp_path: Path) -> None:
    latents, context = torch.randn(6, 48, 8, 8), torch.randn(6, 16, 128)
    pipe = pipeline()
    linears = {
        name: module
        for name, module in pipe.unet.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(TARGETS)
    }
    rngs = [np.random.default_rng(seed) for seed in range(3)]
    factors = {
        name: (new_factors(linear, 2, rngs, "uniform")[0].detach(), torch.randn(3, linear.out_features, 2) / 10)
        for name, linear in linears.items()
    }

    grouped = pipeline().unet
    for name, (down, up) in factors.items():
        parent, _, child = name.rpartition(".")
        layer = GroupedLora(grouped.get_submodule(name))
        layer.down, layer.up = down, up
        setattr(grouped.get_submodule(parent), child, layer)
    with torch.inference_mode():
        together = grouped(latents, 500, context).sample  # two samples for each of three LoRAs

    for lora in range(3):
        tensors = {
            f"unet.{name}.lora.{part}.weight": t[lora].contiguous()
            for name, pair in factors.items()
            for part, t in zip(("down", "up"), pair, strict=True)
        }
        save_file(tensors, tmp_path / f"{lora}.safetensors")
        pipe.load_lora_weights(tmp_path, weight_name=f"{lora}.safetensors")
        with torch.inference_mode():
            alone = pipe.unet(latents[2 * lora : 2 * lora + 2], 500, context[2 * lora : 2 * lora + 2]).sample
        pipe.unload_lora_weights()
        torch.testing.assert_close(together[2 * lora : 2 * lora + 2], alone, rtol=1e-4, atol=1e-4)
        assert set(LoraFile.open(tmp_path / f"{lora}.safetensors").layers) == set(linears)


def test_the_pipeline_draws_the_same_from_the_same_seed() -> None:
    pipe, context = pipeline(), torch.randn(2, 16, 128)
    pictures = [pipe(context, num_inference_steps=2, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert [picture.size for picture in pictures[0]] == [(64, 64)] * 2
    assert np.array_equal(np.asarray(pictures[0][1]), np.asarray(pictures[1][1]))
    assert image_grid(pictures[0] + pictures[1], 3).size == (192, 128)


def test_grouped_adam_equals_adam_for_each_group() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(2, 3, 4), torch.randn(5, 2, 3, 4)
    rates = torch.tensor([1e-2, 3e-3])
    together = start.clone().requires_grad_()
    adam = GroupedAdam([together], [1.0])
    for gradient in gradients:
        together.grad = gradient.clone()
        adam.step(rates)
    for group in range(2):
        alone = start[group].clone().requires_grad_()
        reference = torch.optim.Adam([alone], lr=float(rates[group]), betas=(0.9, 0.99))
        for gradient in gradients:
            alone.grad = gradient[group].clone()
            reference.step()
        torch.testing.assert_close(together[group], alone)


def test_timesteps_are_stratified_in_every_group() -> None:
    times = stratified_timesteps(4, 5, np.random.default_rng(0)).reshape(4, 5).sort(1).values
    assert ((times // 200) == torch.arange(5)).all()
