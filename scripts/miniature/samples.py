"""Drawings: what base models make of captions."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from loradex.app.miniature.pipeline import CONSTANT_PROMPT, MiniaturePipeline, context_of, sheet
from scripts.miniature.mini_clip import load_clip
from scripts.miniature.settings import SEED, Build

GUIDANCE = 3.0  # away from the constant prompt

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

    def states(self, prompts: Sequence[str]) -> Tensor:
        """Text states of prompts."""
        return context_of(self.clip.text, self.tokenizer(list(prompts)))

    def draw(self, prompts: Sequence[str]) -> list[Image.Image]:
        """One picture of the base model for each prompt."""
        without = self.states([CONSTANT_PROMPT] * len(prompts))
        return list(
            self.pipeline(self.states(prompts), without, GUIDANCE, generator=torch.Generator().manual_seed(SEED))
        )


def build_samples(build: Build, tree: str) -> None:
    """Write ``samples-<tree>.png``: a base model's drawings of sixteen captions, with guidance."""
    path = build / f"samples-{tree}.png"
    if not path.exists():
        sheet(Artist(build, tree).draw(SAMPLE_CAPTIONS), 8).save(path)
