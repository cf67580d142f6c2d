"""Steps ``samples-a`` and ``samples-b``: draw sixteen captions with each shipped base model."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from loradex.app.miniature.pipeline import CONSTANT_PROMPT, MiniaturePipeline, embed_prompts, image_grid
from scripts.miniature.mini_clip import load_clip
from scripts.miniature.settings import SEED, Build

GUIDANCE = 3.0  # strength of guidance away from the constant prompt

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


class PromptRenderer:
    """A base model with the mini-CLIP's text tower, which draws prompts."""

    def __init__(self, build: Build, tree: str) -> None:
        """Load the base model and the mini-CLIP."""
        self.clip, self.tokenizer = load_clip(build)
        self.pipeline: Any = MiniaturePipeline.from_folders(build / "upsampler", build / f"tree-{tree}")

    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Text states (prompts, tokens, width) of prompts."""
        return embed_prompts(self.clip.text, self.tokenizer(list(prompts)))

    def draw(self, prompts: Sequence[str]) -> list[Image.Image]:
        """Draw a picture for each prompt."""
        constant = self.embed([CONSTANT_PROMPT] * len(prompts))
        return list(
            self.pipeline(self.embed(prompts), constant, GUIDANCE, generator=torch.Generator().manual_seed(SEED))
        )


def build_samples(build: Build, tree: str) -> None:
    """Write ``samples-<tree>.png``, a grid of the base model's drawings of sixteen captions, with guidance."""
    path = build / f"samples-{tree}.png"
    if not path.exists():
        image_grid(PromptRenderer(build, tree).draw(SAMPLE_CAPTIONS), 8).save(path)
