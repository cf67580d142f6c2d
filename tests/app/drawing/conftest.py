"""Base models and LoRAs of the miniature, and a renderer with its own cache."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loradex.app.drawing.base_models import BaseModels
from loradex.app.drawing.cache import DrawingCache
from loradex.app.drawing.loaded_models import one_thread
from loradex.app.drawing.renderer import Renderer
from loradex.app.paths import MINIATURE


@pytest.fixture(autouse=True)
def single_threaded() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def base_models() -> BaseModels:
    return BaseModels()


@pytest.fixture
def renderer(base_models: BaseModels, tmp_path: Path) -> Renderer:
    return Renderer(base_models, DrawingCache(tmp_path / "drawings"))


def lora(tree: str, number: int = 0) -> Path:
    return sorted((MINIATURE / "models" / tree).glob("test_holdout/*/*.safetensors"))[number]
