"""The encoder of the miniature, and a hub with some of its LoRAs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import Encoder
from tests.hub import Hub, serve
from tests.retrieval.remote.hub_loras import NAME, SHIPPED


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINIATURE / "encoder")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with three LoRAs of the miniature and a model card."""
    hub = Hub(tmp_path / "hub", NAME, ("main", "v1.0", "refs/pr/1"))
    for number, path in enumerate(SHIPPED):
        target = hub.folder / f"icons/{number}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (hub.folder / "README.md").write_text("card")
    with serve(hub, monkeypatch):
        yield hub
