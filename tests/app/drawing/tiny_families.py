"""Tiny models in place of the true ones of SD 1, SD 2, SDXL and SD 3, so that checkpoints in one file are small."""

from pathlib import Path

import pytest

from loradex.app.drawing import one_file
from loradex.retrieval.lora import family
from loradex.retrieval.lora.layer_names.sizes import SIZES, read_size
from scripts.layer_sizes import describe_model, weight_shapes
from tests.app.drawing.random_pipelines import TINY_FAMILIES, TINY_SD3, write_tiny_configs


def use_tiny_families(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let one file of these families be of a tiny model, with configurations in ``folder``; return it."""
    for name, unet in TINY_FAMILIES.items():
        monkeypatch.setitem(family.UNETS, name, unet)
    size = describe_model(weight_shapes("SD3Transformer2DModel", TINY_SD3))
    monkeypatch.setitem(SIZES, "sd3", (read_size("sd3", size),))
    monkeypatch.setattr(one_file, "CONFIGS", write_tiny_configs(folder))
    return folder
