"""Small LoRAs, and answers about them, for the tests of side-cars and cards."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from loradex.app.search.answers import LabelAnswer
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.space.labels import Label

SPACE = "clip-0123"
MODULES = {
    "sd1": ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 768, 320),
    "wan": ("diffusion_model.blocks.0.cross_attn.k", 5120, 5120),
    "unknown": ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", 8, 8),
}
Files = dict[str, tuple[bytes, int]]


def write_lora(path: Path, family: str = "sd1", **metadata: str) -> LoraFile:
    """A LoRA of one layer."""
    module, width, height = MODULES[family]
    ends = ("lora_A", "lora_B") if family == "wan" else ("lora_down", "lora_up")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"{module}.{ends[0]}.weight": torch.ones(2, width), f"{module}.{ends[1]}.weight": torch.ones(height, 2)}
    save_file(tensors, path, metadata={key.replace("__", "."): value for key, value in metadata.items()})
    return LoraFile.open(path)


def answer(*labels: tuple[str, float], reason: str | None = None) -> LabelAnswer:
    """An answer with these labels, or one that abstains for a reason."""
    return LabelAnswer(
        "x.safetensors", "sd1", [Label(label, probability * 3, probability) for label, probability in labels], reason
    )


PIZZA = answer(("pizza", 0.7212), ("food", 0.2), ("dog", 0.01))
DOG = answer(("dog", 0.9), ("puppy", 0.05))
UNSURE = answer(("pizza", 0.2), reason="the best guess is only 20% likely")


def everything(folder: Path) -> Files:
    """What lies below a folder, with times of change."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()
    }
