"""What stands before the page, the API and the agent tools alike: the login, the names that the server answers to, and bounds of size."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loradex.app.web.upload_folder import Uploads

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
LARGEST_BODY: Final = 2 * 2**20  # bytes of a request that brings no files
LARGEST_UPLOAD: Final = 4 * 2**30  # bytes of a request that does
PAUSE: Final = 0.5  # seconds after a wrong password
HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
}
HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]/\\@?#:\s]+))(?::\d{1,5})?")  # a name or address, and a port
AT_ONCE: Final = 3  # of the page's functions
WAITING: Final = 256
PAGE: Final = "/gradio_api/run/predict"
UPLOADS: Final = re.compile(r"/gradio_api/upload/?|/api/v1/(label|inspect|search)")
# Of Gradio's own routes, those that the page asks for: not its proxy, its fetching of addresses, its queue, its history or its deep links.
GRADIO: Final = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte)/.*"
    r"|/gradio_api/(startup-events|app_id|theme\.css|heartbeat/[^/]*|upload|upload_progress|run/predict)/?"
    r"|/gradio_api/file=(?!https?:).*"
)


@dataclass(frozen=True, slots=True)
class Login:
    """A name and a password, kept as digests."""

    digest: bytes

    @classmethod
    def of(cls, name: str, password: str) -> "Login":
        """The login of a name and a password."""
        return cls(hashlib.sha256(f"{name}:{password}".encode()).digest())

    def admits(self, header: str) -> bool:
        """Whether an ``Authorization`` header (RFC 7617) brings it."""
        kind, _, sent = header.partition(" ")
        try:
            given = base64.b64decode(sent.strip(), validate=True) if kind.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            given = b""
        return hmac.compare_digest(hashlib.sha256(given).digest(), self.digest)


@dataclass(frozen=True)
class Gate:
    """An ASGI application that lets through what may pass.

    Attributes:
        login: what everyone has to bring, if anything.
        names: the names that the server answers to, against pages elsewhere that have theirs point here; None for any.
        uploads: where files that are sent lie.
        ours: beginnings of the paths that are not Gradio's.
    """

    app: ASGIApp
    login: Login | None
    names: frozenset[str] | None
    uploads: Uploads
    ours: tuple[str, ...] = ("/drawings/",)
    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE + WAITING))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self.refusal(scope["path"], headers)
        if refused is None and self.login and not self.login.admits(headers.get("authorization", "")):
            if "authorization" in headers:
                await asyncio.sleep(PAUSE)
            refused = refusal(
                401,
                "LoginNeeded",
                "login: expected a name and a password, found none that fit; ask who runs this server",
            )
            refused.headers["www-authenticate"] = 'Basic realm="Loradex", charset="UTF-8"'
        size = int(headers.get("content-length", 0)) if refused is None else 0
        if (
            refused is None
            and UPLOADS.fullmatch(scope["path"])
            and not await asyncio.to_thread(self.uploads.make_room, size)
        ):
            refused = refusal(
                507,
                "UploadsFull",
                "upload: expected room for it, found none; files are kept for 15 minutes, try again later",
            )
        if refused:
            await refused(scope, receive, guarded(send))
            return
        with self.uploads.coming(size):
            if scope["path"] != PAGE:
                await self.app(scope, receive, guarded(send))
            elif self.room.locked():
                await refusal(
                    503,
                    "Busy",
                    "server: expected fewer requests at a time, found too many that wait; try again in a moment",
                )(scope, receive, guarded(send))
            else:
                async with self.room, self.turns:
                    await self.app(scope, receive, guarded(send))

    def refusal(self, path: str, headers: dict[str, str]) -> JSONResponse | None:
        """Why a request is not let through, whoever sends it."""
        host = headers.get("host", "")
        if self.names is not None and name_in(host) not in self.names:
            return refusal(
                403,
                "UnknownHost",
                f"host: expected {' or '.join(sorted(self.names))}, found {host[:80]!r}; start the server with --name for others",
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return refusal(
                403,
                "ForeignOrigin",
                "origin: expected this server's own page, found another; open the page at its own address",
            )
        if not (GRADIO.fullmatch(path) or path.startswith(self.ours)):
            return refusal(404, "NotFound", "address: expected one of this server's, found another; check it")
        size = headers.get("content-length", "0")
        bound = LARGEST_UPLOAD if UPLOADS.fullmatch(path) else LARGEST_BODY
        if "transfer-encoding" in headers or not size.isdecimal():
            return refusal(411, "LengthMissing", "request: expected a Content-Length, found none; send the body whole")
        if len(size) > 15 or int(size) > bound:
            return refusal(
                413, "TooLarge", f"request: expected at most {bound:,} bytes, found {size[:20]}; send less at a time"
            )
        return None


def refusal(status: int, kind: str, message: str) -> JSONResponse:
    """An answer in the form of the API's errors."""
    return JSONResponse({"error": {"kind": kind, "message": message}}, status)


def name_in(host: str) -> str:
    """The name or address of a ``Host`` header, without its port."""
    found = HOST.fullmatch(host) if len(host) < 256 else None
    return (found[1] or found[2]).lower() if found else ""


def names_for(host: str, others: Iterable[str]) -> frozenset[str] | None:
    """The names that a server answers to when it listens on a host."""
    return LOOPBACK | {name.lower() for name in others} if host in LOOPBACK else None


def guarded(send: Send) -> Send:
    """Put ``HEADERS`` on every answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message["headers"],
                *((name.encode(), value.encode()) for name, value in HEADERS.items()),
            ]
        await send(message)

    return sending
