"""Small LoRAs and answers about their labels, for the tests of side-cars and cards."""

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
Snapshot = dict[str, tuple[bytes, int]]


def write_lora(path: Path, family: str = "sd1", **metadata: str) -> LoraFile:
    """Write a LoRA of one layer, with metadata (``__`` in a name stands for a dot)."""
    module, width, height = MODULES[family]
    factors = ("lora_A", "lora_B") if family == "wan" else ("lora_down", "lora_up")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{module}.{factors[0]}.weight": torch.ones(2, width),
        f"{module}.{factors[1]}.weight": torch.ones(height, 2),
    }
    save_file(tensors, path, metadata={key.replace("__", "."): value for key, value in metadata.items()})
    return LoraFile.open(path)


def label_answer(*labels: tuple[str, float], reason: str | None = None) -> LabelAnswer:
    """An answer with these labels; with a reason, one that abstains."""
    return LabelAnswer(
        "x.safetensors", "sd1", [Label(label, probability * 3, probability) for label, probability in labels], reason
    )


PIZZA = label_answer(("pizza", 0.7212), ("food", 0.2), ("dog", 0.01))
DOG = label_answer(("dog", 0.9), ("puppy", 0.05))
UNSURE = label_answer(("pizza", 0.2), reason="the best guess is only 20% likely")


def snapshot(folder: Path) -> Snapshot:
    """The contents and modification times of all files below a folder."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*")) if path.is_file()
    }
