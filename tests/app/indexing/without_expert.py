"""LoRAs that no expert of the miniature reads, one for each reason."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from loradex.app.paths import MINIATURE
from tests.app.describe.samples import write_lora

SHIPPED = next(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))
REASONS = {"family.safetensors": "family", "layers.safetensors": "layers", "stranger.safetensors": "stranger"}
ADVICE = (
    "No expert reads sd1 (1): `loradex expert add PLACE` adds an expert that somebody shares, "
    "and `loradex base add PATH`, then `loradex grow sd1`, grows one from the base model. "
    "Of another base model than the experts of their family: mini-a (1); `loradex expert add PLACE` adds an expert of "
    "that base model if somebody shares one, and `loradex grow PATH --tree NAME` grows one from it. "
    "Without layers that the experts of their family need: mini-a (1); `loradex label FILE` names such a layer, "
    "`loradex expert add PLACE` adds an expert of such layers if somebody shares one, "
    "and `loradex grow mini-a --tree NAME` grows one, with --layers of such layers. "
    "Then index again. Until then these files are found by names, tags, notes and trigger words, "
    "and local ones as look-alikes."
)


def write_files(folder: Path) -> None:
    """Write a LoRA of a family without an expert, one of mini-a without most layers, and one of another base model."""
    write_lora(folder / "family.safetensors")
    tensors = load_file(SHIPPED)
    values = {name: tensor for name, tensor in tensors.items() if "up_blocks" in name and "attn2.to_v" in name}
    save_file(values, folder / "layers.safetensors")
    generator = torch.Generator().manual_seed(0)
    random = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}
    save_file(random, folder / "stranger.safetensors")
