"""A space with a CLIP of its own, that open_clip loads: tiny, with random weights."""

import json
from pathlib import Path
from typing import Any, Final

import open_clip
import torch
from safetensors.torch import save_file

from loradex.retrieval.encoder import SPACE_FILE, Encoder
from loradex.retrieval.space.embedding_space import Space

DIM: Final = 16
CONFIG: Final[dict[str, Any]] = {
    "model_cfg": {
        "embed_dim": DIM,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash"},
}


def save_encoder(folder: Path) -> Encoder:
    """Write a space without experts and labels into a folder, and load it."""
    clip = folder / "clip"
    clip.mkdir(parents=True)
    (clip / "open_clip_config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{clip}")
    save_file(
        {name: each.contiguous() for name, each in model.state_dict().items()}, clip / "open_clip_model.safetensors"
    )
    centres = torch.randn(2, DIM) / 10
    Space("local-dir:clip", ("{}",), centres[0], centres[1]).save(folder / SPACE_FILE)
    return Encoder.load(folder)
