"""The base models of the miniature, which are always at hand."""

from typing import Final

from loradex.app.paths import CLIP, TREES
from loradex.retrieval.base_model import BaseModel, Part, fingerprint_of
from loradex.retrieval.base_model.part import DIFFUSERS, OPEN_CLIP

SHIPPED: Final = ("mini-a", "mini-b")
CLIP_WEIGHTS: Final = CLIP / "open_clip_model.safetensors"
CLIP_CONFIG: Final = CLIP / "open_clip_config.json"
TEXT_PREFIX: Final = "text."


def shipped_base(family: str) -> BaseModel:
    """A base model of the miniature; its text encoder is the text tower of the mini-CLIP, an open_clip folder.

    Raises:
        FileError: the installation lacks its files.
    """
    unet = TREES / family / "unet"
    parts = {
        "text_encoder": Part((CLIP_WEIGHTS,), TEXT_PREFIX, OPEN_CLIP, CLIP_CONFIG),
        "unet": Part((unet / "diffusion_pytorch_model.safetensors",), "", DIFFUSERS, unet / "config.json"),
    }
    return BaseModel(TREES / family, family, "folder", parts, fingerprint_of(parts))
