"""Tiny models in place of the true ones of SD 1, SD 2, SDXL and SD 3, so that checkpoints in one file are small."""

from pathlib import Path

import pytest

from loradex.app.drawing import one_file
from loradex.retrieval.lora import family
from tests.app.drawing.random_pipelines import TINY_FAMILIES, write_tiny_configs


def use_tiny_families(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Let one file of these families be of a tiny model, with configurations in ``folder``; return it."""
    for name, unet in TINY_FAMILIES.items():
        monkeypatch.setitem(family.UNETS, name, unet)
    monkeypatch.setattr(one_file, "CONFIGS", write_tiny_configs(folder))
    return folder
