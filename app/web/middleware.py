"""Middleware in front of page, API and agent tools: login, host names, allowed paths, limits on size and load."""

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

from loradex.app.web.upload_folder import UploadFolder

LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODY_SIZE: Final = 2 * 2**20  # bytes in the body of a request without files
MAX_UPLOAD_SIZE: Final = 4 * 2**30  # bytes in the body of a request with files, all together
WRONG_PASSWORD_DELAY: Final = 0.5  # seconds
SECURITY_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
}
HOST_HEADER: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]/\\@?#:\s]+))(?::\d{1,5})?")  # name or address, port
MAX_RUNNING: Final = 3  # calls of the page's functions that run at a time
MAX_WAITING: Final = 256  # calls that wait for one of them to end
PAGE_CALL_PATH: Final = "/gradio_api/run/predict"
UPLOAD_PATHS: Final = re.compile(r"/gradio_api/upload/?|/api/v1/(label|words|inspect|search)")
# The routes of Gradio that the page needs. Its proxy, URL downloads, queue, run history and deep links stay shut.
GRADIO_PATHS: Final = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte)/.*"
    r"|/gradio_api/(startup-events|app_id|theme\.css|heartbeat/[^/]*|upload|upload_progress|run/predict)/?"
    r"|/gradio_api/file=(?!https?:).*"
)


@dataclass(frozen=True, slots=True)
class Login:
    """A name and a password, kept as a digest."""

    digest: bytes

    @classmethod
    def of(cls, name: str, password: str) -> "Login":
        """The login for a name and a password."""
        return cls(hashlib.sha256(f"{name}:{password}".encode()).digest())

    def accepts(self, header: str) -> bool:
        """Whether an ``Authorization`` header (Basic, RFC 7617) has this name and password."""
        scheme, _, encoded = header.partition(" ")
        try:
            credentials = base64.b64decode(encoded.strip(), validate=True) if scheme.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            credentials = b""
        return hmac.compare_digest(hashlib.sha256(credentials).digest(), self.digest)


@dataclass(frozen=True)
class AccessMiddleware:
    """ASGI middleware that refuses what must not reach the app.

    Attributes:
        login: required of every request; None for none.
        host_names: ``Host`` headers that are answered, against DNS rebinding; None for any.
        uploads: where uploaded files are stored; uploads are refused while it is full.
        own_paths: prefixes of the paths that are not Gradio's.
        running_slots: limits how many page calls run at a time.
        accepted_slots: limits how many run or wait; further ones are refused.
    """

    app: ASGIApp
    login: Login | None
    host_names: frozenset[str] | None
    uploads: UploadFolder
    own_paths: tuple[str, ...] = ("/drawings/",)
    running_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_RUNNING))
    accepted_slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_RUNNING + MAX_WAITING))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the app, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = with_security_headers(send)
        path = scope["path"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self.check_request(path, headers) or await self.check_login(headers)
        size = 0 if refusal else int(headers.get("content-length", 0))
        if not refusal and UPLOAD_PATHS.fullmatch(path) and not await asyncio.to_thread(self.uploads.make_room, size):
            refusal = error_response(
                507,
                "UploadsFull",
                "upload: expected room for it, found none; files are deleted after 15 minutes, try again later",
            )
        if refusal:
            await refusal(scope, receive, send)
            return
        with self.uploads.incoming(size):
            if path != PAGE_CALL_PATH:
                await self.app(scope, receive, send)
            elif self.accepted_slots.locked():
                busy = "server: expected fewer requests at a time, found too many waiting; try again in a moment"
                await error_response(503, "Busy", busy)(scope, receive, send)
            else:
                async with self.accepted_slots, self.running_slots:
                    await self.app(scope, receive, send)

    def check_request(self, path: str, headers: dict[str, str]) -> JSONResponse | None:
        """The refusal of a request by its host, origin, path and size, whoever sends it; None if it may pass."""
        host = headers.get("host", "")
        if self.host_names is not None and host_name(host) not in self.host_names:
            return error_response(
                403,
                "UnknownHost",
                f"host: expected {' or '.join(sorted(self.host_names))}, found {host[:80]!r}; start the server with --name for others",
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return error_response(
                403,
                "ForeignOrigin",
                "origin: expected this server's own page, found another; open the page at its own address",
            )
        if not (GRADIO_PATHS.fullmatch(path) or path.startswith(self.own_paths)):
            return error_response(404, "NotFound", "address: expected one of this server, found another; check it")
        size = headers.get("content-length", "0")
        max_size = MAX_UPLOAD_SIZE if UPLOAD_PATHS.fullmatch(path) else MAX_BODY_SIZE
        if "transfer-encoding" in headers or not size.isdecimal():
            return error_response(
                411, "LengthMissing", "request: expected a Content-Length, found none; send the body in one piece"
            )
        if len(size) > 15 or int(size) > max_size:
            return error_response(
                413, "TooLarge", f"request: expected at most {max_size:,} bytes, found {size[:20]}; send less at a time"
            )
        return None

    async def check_login(self, headers: dict[str, str]) -> JSONResponse | None:
        """The refusal of a request without the login, delayed after a wrong password; None if it may pass."""
        if self.login is None or self.login.accepts(headers.get("authorization", "")):
            return None
        if "authorization" in headers:
            await asyncio.sleep(WRONG_PASSWORD_DELAY)
        message = "login: expected the server's name and password, found none that match; ask who runs this server"
        refusal = error_response(401, "LoginNeeded", message)
        refusal.headers["www-authenticate"] = 'Basic realm="Loradex", charset="UTF-8"'
        return refusal


def error_response(status: int, kind: str, message: str) -> JSONResponse:
    """A response in the form of the API's errors."""
    return JSONResponse({"error": {"kind": kind, "message": message}}, status)


def host_name(header: str) -> str:
    """The name or address in a ``Host`` header, without its port; "" if there is none."""
    match = HOST_HEADER.fullmatch(header) if len(header) < 256 else None
    return (match[1] or match[2]).lower() if match else ""


def allowed_host_names(host: str, others: Iterable[str]) -> frozenset[str] | None:
    """The names that a server answers to when it listens on ``host``: only loopback servers restrict them."""
    return LOOPBACK_HOSTS | {name.lower() for name in others} if host in LOOPBACK_HOSTS else None


def with_security_headers(send: Send) -> Send:
    """Add ``SECURITY_HEADERS`` to every response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message["headers"],
                *((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()),
            ]
        await send(message)

    return send_with_headers
