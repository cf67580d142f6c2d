"""The middleware around any app, and a real server."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from loradex.app.web.middleware import LOOPBACK_HOSTS, AccessMiddleware, Login
from loradex.app.web.upload_folder import UploadFolder
from tests.app.web.live_server import Server, serving

App = Callable[[Any, Any, Any], Awaitable[None]]
OWN_PATHS = ("/drawings/", "/api/v1/", "/mcp")


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadFolder]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    uploads = UploadFolder(max_bytes=1000)
    yield uploads
    uploads.remove()


@pytest.fixture
def make_middleware(uploads: UploadFolder) -> Callable[..., AccessMiddleware]:
    """Put the middleware around an app; by default around one that answers "inside"."""

    def make(
        login: Login | None = None, host_names: frozenset[str] | None = LOOPBACK_HOSTS, app: App | None = None
    ) -> AccessMiddleware:
        return AccessMiddleware(app or PlainTextResponse("inside"), login, host_names, uploads, OWN_PATHS)

    return make


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served"), "--api", "--mcp") as server:
        yield server
