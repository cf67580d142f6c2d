"""Bases and LoRAs of the miniature, and a studio with a cache of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loradex.app.drawing.base_models import Bases
from loradex.app.drawing.cache import Drawings
from loradex.app.drawing.loaded_models import one_thread
from loradex.app.drawing.renderer import Studio
from loradex.app.paths import MINIATURE


@pytest.fixture(autouse=True)
def little_noise_from_others() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def bases() -> Bases:
    return Bases()


@pytest.fixture
def studio(bases: Bases, tmp_path: Path) -> Studio:
    return Studio(bases, Drawings(tmp_path / "drawings"))


def lora(tree: str, number: int = 0) -> Path:
    return sorted((MINIATURE / "models" / tree).glob("test_holdout/*/*.safetensors"))[number]
