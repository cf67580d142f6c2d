"""Layers and LoRAs of mini-b whose inputs are the states of a text, as those of one that was trained with it."""

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from loradex.app.bases.shipped import shipped_base
from loradex.retrieval.text_states import PromptEncoder
from loradex.retrieval.words import WordReader

BLOCKS = "unet.down_blocks.{}.attentions.{}.transformer_blocks.0.attn2.to_{}"
LAYERS = tuple(BLOCKS.format(block, number, name) for block in range(3) for number in range(2) for name in "kv")
RANK = 4
NOISE = 0.02  # beside mixed states at length 1


@cache
def word_reader() -> WordReader:
    """A reader of mini-b with few candidates (``tests.few_words``)."""
    return WordReader(PromptEncoder.load(shipped_base("mini-b")))


def mixed_rows(states: Tensor, seed: int, count: int = 12) -> list[Tensor]:
    """Row spaces (RANK, width) of ``count`` layers: random sums of states (positions, width), and some noise."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for _ in range(count):
        rows = torch.randn(RANK, len(states), generator=generator) @ states
        rows = rows / rows.norm() + NOISE * torch.randn(rows.shape, generator=generator)
        layers.append(rows / rows.norm())
    return layers


def caption_states(caption: str, positions: int = 8) -> Tensor:
    """Centred states (positions, width) of a caption."""
    reader = word_reader()
    tokens = reader.encoder.tokenize([caption])
    return reader.common.centred(reader.encoder.states(tokens, positions + 1)[:, 1:])[0]


def save_lora(path: Path, layers: list[Tensor], names: tuple[str, ...] = LAYERS, **others: Tensor) -> Path:
    """Write a LoRA whose layers have these inputs (rank, in), each with random outputs, and further tensors."""
    generator = torch.Generator().manual_seed(1)
    tensors = dict(others)
    for name, rows in zip(names, layers, strict=True):
        tensors[f"{name}.lora_A.weight"] = rows.clone()
        tensors[f"{name}.lora_B.weight"] = torch.randn(32, len(rows), generator=generator)
    save_file(tensors, path)
    return path
