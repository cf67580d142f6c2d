"""One server for the page, the drawings and, when asked for, the API and the agent tools."""

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

from loradex.app.api.rest import rest_api
from loradex.app.api.tools import agent_tools, http_app
from loradex.app.backend import Desk
from loradex.app.previews import drawing_of
from loradex.app.web.middleware import Gate, Login, names_for
from loradex.app.web.page import build_page
from loradex.app.web.theme import CSS, SCRIPT, LoradexTheme
from loradex.app.web.upload_folder import Uploads
from loradex.index import ZooError
from loradex.retrieval.errors import QueryError

KEPT: Final = 600  # seconds for which a browser keeps a drawing
LEAST_PASSWORD: Final = 8  # characters
LARGEST_FILE: Final = "1gb"
BACKLOG: Final = 512
PATIENCE: Final = 3  # seconds that open connections get when the server ends
ICON: Final = Path(__file__).parent / "icon.png"


@dataclass(frozen=True, slots=True)
class Service:
    """What is served where, and to whom; ``names`` are those that the server answers to besides the host's own."""

    host: str = "127.0.0.1"
    port: int = 7860
    login: Login | None = None
    names: Sequence[str] = ()
    api: bool = False
    tools: bool = False


def build_app(desk: Desk, uploads: Uploads, service: Service) -> Gate:
    """The whole server behind its gate."""
    tools = http_app(agent_tools(desk, local=False)) if service.tools else None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with tools.router.lifespan_context(tools) if tools else nullcontext():
            yield

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.get("/drawings/{id}.png")(lambda id: drawing(desk, id))
    ours = ["/drawings/"]
    if service.api:
        app.mount("/api/v1", rest_api(desk))
        ours.append("/api/v1/")
    if tools:
        app.router.routes.extend(tools.routes)
        ours.append("/mcp")
    gr.mount_gradio_app(
        app,
        build_page(desk),
        path="/",
        favicon_path=str(ICON),
        max_file_size=LARGEST_FILE,
        show_error=False,  # of errors that no one foresaw
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
    return Gate(app, service.login, names_for(service.host, service.names), uploads, tuple(ours))


def drawing(desk: Desk, id: str) -> Response:
    """What a model draws."""
    loradex = desk.loradex
    try:
        path = drawing_of(loradex.zoo.get(id), loradex.zoo_folder)
    except ZooError:
        path = None
    return (
        FileResponse(path, media_type="image/png", headers={"cache-control": f"private, max-age={KEPT}"})
        if path
        else Response(status_code=404)
    )


def serve(desk: Desk, service: Service, told: Callable[[str], None]) -> None:
    """Serve until interrupted; models are loaded before ``told`` gets the address.

    Raises:
        LoradexError, ZooError: the encoder or the zoo cannot be loaded.
        QueryError: the address cannot be listened on.
    """
    uploads = Uploads()
    try:
        desk.loradex.search("warm up", 1)
        app = build_app(desk, uploads, service)
        listening = listen(service.host, service.port)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=PATIENCE,
            server_header=False,
            ws="none",
        )
        told(f"http://{f'[{service.host}]' if ':' in service.host else service.host}:{listening.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        desk.close()
        uploads.remove()


def login_of(written: str) -> Login:
    """A login as people write it: ``name:password``.

    Raises:
        QueryError: it is written in another way.
    """
    name, _, password = written.strip().partition(":")
    if not name or len(password) < LEAST_PASSWORD or "\n" in written.strip():
        raise QueryError(
            f"login: expected one line name:password with {LEAST_PASSWORD} characters or more behind the colon, found none; write it so"
        )
    return Login.of(name, password)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        QueryError: it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise QueryError(
            f"{host} port {port}: expected to listen there, found: {error.strerror}; choose another --port"
        ) from None
