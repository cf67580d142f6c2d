"""A gate around any app, and a real server."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from loradex.app.web.middleware import LOOPBACK, Gate, Login
from loradex.app.web.upload_folder import Uploads
from tests.app.web.serving import Server, serving

App = Callable[[Any, Any, Any], Awaitable[None]]
OURS = ("/drawings/", "/api/v1/", "/mcp")


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    uploads = Uploads(most_bytes=1000)
    yield uploads
    uploads.remove()


@pytest.fixture
def door(uploads: Uploads) -> Callable[..., Gate]:
    def made(login: Login | None = None, names: frozenset[str] | None = LOOPBACK, app: App | None = None) -> Gate:
        return Gate(app or PlainTextResponse("inside"), login, names, uploads, OURS)

    return made


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served"), "--api", "--mcp") as server:
        yield server
