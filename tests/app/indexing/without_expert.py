"""LoRAs that no expert of the miniature reads, one for each reason."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from loradex.app.paths import MINIATURE
from tests.app.describe.samples import write_lora

SHIPPED = next(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))
REASONS = {"family.safetensors": "family", "layers.safetensors": "layers", "stranger.safetensors": "stranger"}
ADVICE = (
    "No expert reads sd1 (1): train one on labelled LoRAs of that family (`loradex train FOLDER`), "
    "or name a folder that holds one in $LORADEX_ENCODER. "
    "Of another base model than the experts of their family: mini-a (1). "
    "Train an expert on labelled models of that base model (`loradex train FOLDER --tree NAME`). "
    "Without layers that the experts of their family need: mini-a (1). `loradex label FILE` names such a layer. "
    "Train an expert on labelled models with the layers of these files "
    "(`loradex train FOLDER --tree NAME`; --layers chooses among them). "
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
