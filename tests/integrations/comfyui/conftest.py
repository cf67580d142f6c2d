"""The pack in a stand-in for ComfyUI, and a real server of Loradex behind it that serves the miniature."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from fastapi import FastAPI

from loradex.app.api.rest import rest_api
from loradex.app.backend import Backend
from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.app.search.service import Loradex
from tests.app.api.serving import served
from tests.app.words.shared import shared_service
from tests.integrations.comfyui.stand_ins import ComfyUI

LORAS = MINIATURE / "models" / "mini-a" / "test_holdout"


@pytest.fixture(scope="session")
def api() -> FastAPI:
    backend = Backend(Loradex(SHIPPED_ZOO), roots=[])
    backend._words = shared_service()
    app = FastAPI()
    app.mount("/api/v1", rest_api(backend))
    return app


@pytest.fixture(scope="session")
def loradex(api: FastAPI) -> Iterator[str]:
    """The address of a server."""
    with served(api) as address:
        yield address


@pytest.fixture
def comfyui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ComfyUI:
    for name in ("LORADEX_SERVER", "LORADEX_LOGIN"):
        monkeypatch.delenv(name, raising=False)
    (checkpoints := tmp_path / "checkpoints").mkdir()
    return ComfyUI({"loras": [LORAS], "checkpoints": [checkpoints]}, tmp_path / "user")


@pytest.fixture
def pack(comfyui: ComfyUI, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return comfyui.load_pack(monkeypatch)
