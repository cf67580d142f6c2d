"""One server for the page, the drawings and, when asked for, the API and the agent tools."""

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gradio as gr
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse

from app.desk import Desk
from app.pictures import drawing_of
from app.web.gate import Gate, Login, names_for
from app.web.page import build_page
from app.web.theme import CSS, SCRIPT, LoradexTheme
from app.web.uploads import Uploads
from index.errors import ModelMissing, ZooError
from retrieval.errors import QueryError

KEPT: Final = 600  # seconds for which a browser keeps a drawing
AT_ONCE: Final = 2  # searches, labels and the like
WAITING: Final = 64
LARGEST_FILE: Final = "1gb"
BACKLOG: Final = 512
PATIENCE: Final = 3  # seconds that open connections get when the server ends
ICON: Final = Path(__file__).parent / "icon.png"


@dataclass(frozen=True, slots=True)
class Service:
    """What is served to whom."""

    login: Login | None = None
    names: Sequence[str] = ()
    api: bool = False
    tools: bool = False


def build_app(desk: Desk, uploads: Uploads, service: Service, host: str) -> Gate:
    """The whole server behind its gate."""
    app = FastAPI(title="Loradex", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/drawings/{id}.png")
    def drawing(id: str) -> Response:
        loradex = desk.loradex
        try:
            path = drawing_of(loradex.zoo.get(id), loradex.zoo_folder)
        except (ModelMissing, ZooError):
            path = None
        if path is None:
            return Response(status_code=404)
        return FileResponse(path, media_type="image/png", headers={"cache-control": f"private, max-age={KEPT}"})

    page = build_page(desk).queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)
    gr.mount_gradio_app(
        app,
        page,
        path="/",
        favicon_path=str(ICON),
        max_file_size=LARGEST_FILE,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=LoradexTheme(),
        css_paths=CSS,
        js=SCRIPT.read_text("utf-8"),
        show_error=True,
    )
    return Gate(app, service.login, names_for(host, service.names), uploads)


def serve(desk: Desk, service: Service, host: str, port: int) -> None:
    """Serve until interrupted; models are loaded before the address is told.

    Raises:
        LoradexError, ZooError: the encoder or the zoo cannot be loaded.
        QueryError: the address cannot be listened on.
    """
    uploads = Uploads()
    try:
        desk.loradex.search("warm up", 1)
        app = build_app(desk, uploads, service, host)
        listening = listen(host, port)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=PATIENCE, server_header=False, ws="none")
        name = f"[{host}]" if ":" in host else host
        sys.stderr.write(f"Loradex serves {desk.loradex.zoo_folder} on http://{name}:{listening.getsockname()[1]} (Ctrl+C ends it)\n")
        sys.stderr.flush()
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        desk.stop()
        uploads.remove()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        QueryError: it cannot.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise QueryError(f"{host} port {port}: expected to listen there, found: {error.strerror}; choose another --port") from None
