"""One server for the page, the previews and, if asked for, the REST API and the agent tools."""

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gradio as gr
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse

from loradex.app.api.multipart import MAX_FILE_BYTES
from loradex.app.api.rest import rest_api
from loradex.app.api.tools import agent_tools, http_app
from loradex.app.backend import Backend
from loradex.app.indexing.evidence.preview import PreviewPlacer
from loradex.app.previews import preview_path
from loradex.app.web.middleware import AccessMiddleware, Login, allowed_host_names
from loradex.app.web.page import build_page
from loradex.app.web.theme import CSS, SCRIPT, LoradexTheme
from loradex.app.web.upload_folder import UploadFolder
from loradex.index import ZooError
from loradex.retrieval.errors import QueryError

PREVIEW_MAX_AGE: Final = 600  # seconds for which browsers cache a preview
MIN_PASSWORD_LENGTH: Final = 8  # characters
BACKLOG: Final = 512  # connections that wait to be accepted
SHUTDOWN_TIMEOUT: Final = 3  # seconds for open connections to end
ICON: Final = Path(__file__).parent / "icon.png"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where to serve, to whom, and what.

    Attributes:
        host, port: address to listen on; port 0 takes a free one.
        login: required of everyone; None for none.
        host_names: further names that the server answers to, if it listens on this machine only.
        api, tools: whether to serve the REST API, and the agent tools.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    login: Login | None = None
    host_names: Sequence[str] = ()
    api: bool = False
    tools: bool = False


def build_app(backend: Backend, uploads: UploadFolder, options: ServerOptions) -> AccessMiddleware:
    """The ASGI app: page, previews, API and agent tools, behind the middleware."""
    tools = http_app(agent_tools(backend, local=False)) if options.tools else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with tools.router.lifespan_context(tools) if tools else nullcontext():
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.get("/drawings/{id}.png")(lambda id: preview_response(backend, id))
    own_paths = ["/drawings/"]
    if options.api:
        app.mount("/api/v1", rest_api(backend))
        own_paths.append("/api/v1/")
    if tools:
        app.router.routes.extend(tools.routes)
        own_paths.append("/mcp")
    gr.mount_gradio_app(
        app,
        build_page(backend),
        path="/",
        favicon_path=str(ICON),
        max_file_size=MAX_FILE_BYTES,
        show_error=False,  # unexpected errors would show the server's internals
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=LoradexTheme(),
        css_paths=CSS,
        js=SCRIPT.read_text("utf-8"),
    )
    host_names = allowed_host_names(options.host, options.host_names)
    return AccessMiddleware(app, options.login, host_names, uploads, tuple(own_paths))


def preview_response(backend: Backend, id: str) -> Response:
    """The preview of a model; 404 if there is no such model or it has none."""
    loradex = backend.loradex
    try:
        path = preview_path(loradex.zoo.get(id), loradex.zoo_folder)
    except ZooError:
        path = None
    if path is None:
        return Response(status_code=404)
    return FileResponse(path, media_type="image/png", headers={"cache-control": f"private, max-age={PREVIEW_MAX_AGE}"})


def warm_up(backend: Backend) -> None:
    """Load the zoo and CLIP's towers, so that the first queries do not wait; a CLIP without pictures is served too."""
    backend.loradex.search("warm up", 1)
    PreviewPlacer(backend.loradex.encoder).can_place()


def serve(backend: Backend, options: ServerOptions, on_ready: Callable[[str], None]) -> None:
    """Serve until interrupted; ``on_ready`` gets the address once the models are loaded.

    Raises:
        LoradexError, ZooError: the encoder or the zoo cannot be loaded.
        QueryError: the address cannot be listened on.
    """
    uploads = UploadFolder()
    try:
        warm_up(backend)
        app = build_app(backend, uploads, options)
        listener = listen(options.host, options.port)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
            server_header=False,
            ws="none",
        )
        host = f"[{options.host}]" if ":" in options.host else options.host
        on_ready(f"http://{host}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        backend.close()
        uploads.remove()


def parse_login(text: str) -> Login:
    """Parse a login written as one line ``name:password``.

    Raises:
        QueryError: the text has another form, or the password is too short.
    """
    name, _, password = text.strip().partition(":")
    if not name or len(password) < MIN_PASSWORD_LENGTH or "\n" in text.strip():
        raise QueryError(
            f"login: expected one line name:password with {MIN_PASSWORD_LENGTH} characters or more after the colon, found another; write it so"
        )
    return Login.of(name, password)


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens on an address.

    Raises:
        QueryError: the address is unknown, in use or not allowed.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise QueryError(
            f"{host} port {port}: expected to listen there, found: {error.strerror}; choose another --port"
        ) from None
