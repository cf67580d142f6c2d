"""Labelled LoRAs in Model-J's layout, ``<split>/model_idx_NNNN/pytorch_lora_weights.safetensors``, packed by layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from retrieval.errors import FileUnsupported
from retrieval.lora import LoraFile
from retrieval.probex.probing import Factors

FILE_NAME = "pytorch_lora_weights.safetensors"
SPLITS = ("train", "val", "test", "val_holdout", "test_holdout")  # the last two hold concepts that no training model has


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One LoRA of a zoo whose concept is known."""

    path: Path
    split: str
    class_name: str


def find_labelled(zoo: Path) -> list[LabelledFile]:
    """Every labelled LoRA below ``zoo``, by split and path.

    Raises:
        FileUnsupported: there is none, or a header names no class.
    """
    found = []
    for split in SPLITS:
        for path in sorted((zoo / split).glob(f"*/{FILE_NAME}")):
            metadata = LoraFile.open(path).header.metadata
            name = metadata.get("class_name") or metadata.get("imagenet_class_id")
            if not name:
                raise FileUnsupported(f"{path}: expected class_name or imagenet_class_id in the header, found {sorted(metadata)[:5]}")
            found.append(LabelledFile(path, split, name))
    if not found:
        raise FileUnsupported(f"{zoo}: expected labelled LoRAs as <split>/model_idx_NNNN/{FILE_NAME}, found none; splits are {', '.join(SPLITS)}")
    return found


def pack(files: Sequence[Path], layers: Sequence[str] | None = None, progress: Callable[[int], None] = lambda done: None) -> dict[str, Factors]:
    """Read layers (all of the first file's when None) of many LoRAs into padded factors, in half precision."""
    opened = [LoraFile.open(path) for path in files]
    names = list(opened[0].layers) if layers is None else list(layers)
    rank = max(max(lora.ranks) for lora in opened)
    shapes = opened[0].shapes
    packed = {
        name: Factors(torch.zeros(len(files), rank, shapes[name][1], dtype=torch.float16), torch.zeros(len(files), shapes[name][0], rank, dtype=torch.float16))
        for name in names
    }
    for row, lora in enumerate(opened):
        for name, update in lora.updates(names).items():
            packed[name].down[row, : update.rank] = update.down
            packed[name].up[row, :, : update.rank] = update.up
        progress(row + 1)
    return packed
