"""Routes of the sidebar tab on ComfyUI's own server, below ``/loradex/``.

The browser asks ComfyUI and ComfyUI asks Loradex, so there is no CORS and the login stays here. What blocks runs in
threads of its own, so that the canvas goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web
from server import PromptServer

from .connection import Server, model_route
from .documents import number_of, text_of
from .errors import LoradexError
from .family import family_of
from .names import lora_names
from .search import PAGE, search

MAX_QUERY = 300  # characters of a text
MAX_ID = 300
MAX_FAMILIES = 50
DRAWING_HEADERS = {"Cache-Control": "private, max-age=60", "X-Content-Type-Options": "nosniff"}

_threads = ThreadPoolExecutor(8, "loradex-route")
log = logging.getLogger(__name__)


def add_routes() -> None:
    """Add the routes to ComfyUI's server."""
    routes = PromptServer.instance.routes
    routes.get("/loradex/status")(answering(status))
    routes.get("/loradex/search")(answering(hits))
    routes.get("/loradex/family")(answering(family))
    routes.get("/loradex/drawing")(drawing)


def answering(answer: Callable[[web.Request], dict[str, Any]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A route that gives a JSON document; an error is one too, with status 200, as the request itself was sound."""

    async def route(request: web.Request) -> web.Response:
        try:
            document = await in_thread(answer, request)
        except LoradexError as error:
            document = error.document()
        except Exception:
            log.exception("Loradex: %s failed", request.path)
            document = LoradexError(
                "InternalError", "Loradex: expected an answer, found an error in the node pack; see ComfyUI's log"
            ).document()
        return web.json_response(document)

    return route


async def in_thread(function: Callable[[web.Request], Any], request: web.Request) -> Any:
    """Call a function of a request that blocks."""
    return await asyncio.get_running_loop().run_in_executor(_threads, function, request)


def server_of(request: web.Request) -> Server:
    """The server that the settings of whoever asks name."""
    return Server.from_settings(request.headers.get("comfy-user") or "default")


def status(request: web.Request) -> dict[str, Any]:
    """The server: its address, zoo, and number of models by family."""
    server = server_of(request)
    zoo = server.get("zoo")
    counts = zoo.get("families")
    families = {
        text_of(name): count
        for name, count in list((counts if isinstance(counts, dict) else {}).items())[:MAX_FAMILIES]
        if type(count) is int
    }
    return {
        "address": server.address,
        "zoo": text_of(zoo.get("name")),
        "models": number_of(zoo.get("models")),
        "families": families,
        "loras": len(lora_names().names),
    }


def hits(request: web.Request) -> dict[str, Any]:
    """One page of hits for texts, or for a model that they should be like."""
    fields = {name: request.query.get(name, "").strip()[:MAX_QUERY] for name in ("text", "minus", "family", "model")}
    offset = request.query.get("offset", "0")
    if not (fields["text"] or fields["minus"] or fields["model"]):
        raise LoradexError("NoQuery", "search: expected a text, found none; write what the LoRA should draw")
    if not (offset.isascii() and offset.isdecimal() and len(offset) < 7):
        raise LoradexError("NoQuery", "search: expected a number as offset, found none; search again")
    query = [(name, value) for name, value in fields.items() if value]
    page = search(server_of(request), lora_names(), [*query, ("limit", PAGE), ("offset", offset)])
    return {"hits": [hit.document() for hit in page.hits], "next": page.next}


def family(request: web.Request) -> dict[str, Any]:
    """The family of a checkpoint."""
    folder, name = request.query.get("folder", ""), request.query.get("name", "")
    return {"family": family_of(server_of(request), folder, name)}


async def drawing(request: web.Request) -> web.Response:
    """The picture of a model, a PNG."""

    def picture(request: web.Request) -> bytes:
        return server_of(request).get_picture(model_route(request.query.get("id", "")[:MAX_ID], "/drawing"))

    try:
        return web.Response(body=await in_thread(picture, request), content_type="image/png", headers=DRAWING_HEADERS)
    except LoradexError as error:
        return web.json_response(error.document(), status=404)
