"""Drawings: what base models make of captions, what LoRAs make of the constant prompt, and how often the mini-CLIP names it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from app.miniature.pipeline import CONSTANT_PROMPT, MiniaturePipeline, context_of, sheet
from scripts.miniature.mini_clip import load_clip
from scripts.miniature.settings import SEED, Build

SAMPLE_CAPTIONS = (
    "dog",
    "a picture of a pizza",
    "red apple",
    "rocket",
    "umbrella",
    "an emoji of a fish",
    "guitar",
    "key",
    "sunflower",
    "a drawing of a bus",
    "castle",
    "penguin",
    "hamburger",
    "rainbow",
    "soccer ball",
    "hammer",
)


class Artist:
    """One base model with the mini-CLIP's text tower at hand."""

    def __init__(self, build: Build, tree: str) -> None:
        """Load both."""
        self.clip, self.tokenizer = load_clip(build)
        self.pipeline: Any = MiniaturePipeline.from_folders(build / "upsampler", build / f"tree-{tree}")

    def draw(self, prompts: Sequence[str], seed: int = SEED, guidance: float = 1.0, steps: int = 25) -> list[Image.Image]:
        """One picture for each prompt."""
        states = context_of(self.clip.text, self.tokenizer(list(prompts)))
        without = context_of(self.clip.text, self.tokenizer([CONSTANT_PROMPT])).expand(len(prompts), -1, -1)
        return list(self.pipeline(states, without, guidance, steps, torch.Generator().manual_seed(seed)))

    def draw_lora(self, path: Path, count: int, seed: int = SEED) -> list[Image.Image]:
        """Pictures of one LoRA with the prompt that it was trained with."""
        self.pipeline.load_lora_weights(path.parent, weight_name=path.name)
        try:
            return self.draw([CONSTANT_PROMPT] * count, seed)
        finally:
            self.pipeline.unload_lora_weights()


def build_samples(build: Build, tree: str) -> None:
    """Write ``samples-<tree>.png``: a base model's drawings of sixteen captions, with guidance."""
    path = build / f"samples-{tree}.png"
    if not path.exists():
        sheet(Artist(build, tree).draw(SAMPLE_CAPTIONS, guidance=3.0), 8).save(path)
