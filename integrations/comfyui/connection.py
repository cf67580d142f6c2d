"""Requests to the Loradex server, each with a deadline and a bound on its answer; with the standard library alone.

They block, so they run in worker threads: those of ``routes.py``, or ComfyUI's own that executes nodes. Redirections
are not followed and proxies not used, so that a login goes nowhere else.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from .errors import LoradexError, serve_command
from .settings import ADDRESS_VARIABLE, LOGIN_FILE, login_for, server_address

SECONDS = 15.0  # for one answer
UPLOAD_SECONDS = 180.0  # for one that takes a LoRA; a server waits a minute for a base model
MAX_ANSWER_BYTES = 8 * 2**20
MAX_UPLOAD_BYTES = 2**30  # the server's own bound
CHUNK_BYTES = 2**20
PREFIX = "/api/v1/"
BOUNDARY = "loradex-7f3d5c1b9a2e"
API_MISSING = "found a server without the API of Loradex"

Query = Iterable[tuple[str, object]]


@dataclass(frozen=True)
class Upload:
    """A file to send: its field, its name, and its content: bytes, or the path of a file."""

    field: str
    name: str
    content: bytes | str

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.content) if isinstance(self.content, bytes) else os.path.getsize(self.content)

    def chunks(self) -> Iterator[bytes]:
        """The content, as it is sent."""
        if isinstance(self.content, bytes):
            yield self.content
            return
        with open(self.content, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


@dataclass(frozen=True)
class Server:
    """A Loradex server; ``login`` is ``name:password`` or None. Every method raises LoradexError."""

    address: str
    login: str | None = None

    @classmethod
    def from_settings(cls, user: str = "default") -> Server:
        """The server that a person's settings name."""
        address = server_address(user)
        return cls(address, login_for(address))

    def get(self, route: str, query: Query = (), seconds: float = SECONDS) -> dict[str, Any]:
        """The JSON document of a route below ``/api/v1/``."""
        return self._document(self._request("GET", with_query(route, query), seconds=seconds))

    def get_picture(self, route: str) -> bytes:
        """The PNG of a route."""
        body = self._request("GET", route)
        if not body.startswith(b"\x89PNG\r\n\x1a\n"):
            raise self._no_api("found no PNG")
        return body

    def post_json(self, route: str, document: dict[str, Any]) -> dict[str, Any]:
        """Send a JSON document; the answer is another."""
        body = json.dumps(document).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        return self._document(self._request("POST", route, headers, [body]))

    def post_form(self, route: str, fields: Query, uploads: Sequence[Upload]) -> dict[str, Any]:
        """Send a form with files; the answer is a JSON document."""
        try:
            sizes = [upload.size for upload in uploads]
            if max(sizes, default=0) > MAX_UPLOAD_BYTES:
                raise LoradexError(
                    "TooLarge", f"Loradex: expected files of up to {MAX_UPLOAD_BYTES:,} bytes, found {max(sizes):,}"
                )
            heads = [form_head(upload.field, f'; filename="{safe_filename(upload.name)}"') for upload in uploads]
            texts = b"".join(form_head(name) + str(value).encode(errors="replace") + b"\r\n" for name, value in fields)
            end = f"--{BOUNDARY}--\r\n".encode()
            length = len(texts) + sum(map(len, heads)) + sum(sizes) + 2 * len(uploads) + len(end)
            headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(length)}
            body = form_body(texts, heads, uploads, end)
            return self._document(self._request("POST", route, headers, body, UPLOAD_SECONDS))
        except FileNotFoundError as error:
            raise LoradexError("FileMissing", f"Loradex: expected a file {error.filename!r}, found none") from None

    def _request(
        self,
        method: str,
        route: str,
        headers: dict[str, str] | None = None,
        body: Iterable[bytes] | None = None,
        seconds: float = SECONDS,
    ) -> bytes:
        """The body of an answer, with success."""
        parts = urlsplit(self.address)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=seconds)
        sent = {"Accept": "application/json, image/png", "Connection": "close", **(headers or {})}
        if self.login is not None:
            sent["Authorization"] = "Basic " + base64.b64encode(self.login.encode()).decode()
        start, watch = time.monotonic(), threading.Timer(seconds, close_socket, [connection])
        watch.daemon = True
        watch.start()
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it refuses an upload before its end, and says why
                connection.request(method, parts.path + PREFIX + route, body, sent)
            response = connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES + 1)
        except (OSError, HTTPException) as error:
            if time.monotonic() - start >= seconds or isinstance(error, TimeoutError):
                raise self._too_slow(seconds) from None
            raise self._no_server(error) from None
        finally:
            watch.cancel()
            connection.close()
        if time.monotonic() - start >= seconds:  # the watch ended it: what was read may be a part
            raise self._too_slow(seconds)
        if response.status != 200:
            raise self._refused(response, content)
        if len(content) > MAX_ANSWER_BYTES:
            raise self._no_api("found an endless answer")
        return content

    def _document(self, content: bytes) -> dict[str, Any]:
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._no_api("found no JSON document")
        return document

    def _refused(self, response: HTTPResponse, content: bytes) -> LoradexError:
        """The error of an answer without success."""
        if response.status == 401:
            return LoradexError(
                "LoginNeeded",
                f"Loradex at {self.address}: expected its login, found {'a wrong one' if self.login else 'none'}; "
                f"write name:password into ComfyUI's user/{LOGIN_FILE}, and for another machine its address below",
            )
        try:
            reason = json.loads(content)["error"]
            kind, message = str(reason["kind"])[:50], str(reason["message"])[:500]
        except (ValueError, KeyError, TypeError, RecursionError):
            return self._no_api(f"found status {response.status}")
        if kind == "NotFound":  # of a route; that of a model has another kind
            return self._no_api(API_MISSING)
        return LoradexError(kind, message)

    def _no_server(self, error: Exception) -> LoradexError:
        reason = getattr(error, "strerror", None) or type(error).__name__
        command = serve_command(self.address)
        return LoradexError(
            "NoServer",
            f"Loradex: expected a server at {self.address}, found none ({reason}); start it with `{command}`, "
            f"or correct the address in ComfyUI's settings (or ${ADDRESS_VARIABLE})",
            command,
        )

    def _no_api(self, found: str) -> LoradexError:
        command = serve_command(self.address)
        return LoradexError(
            "NoApi",
            f"Loradex: expected its API at {self.address}, {found}; start it with `{command}`, "
            "or correct the address in ComfyUI's settings",
            command,
        )

    def _too_slow(self, seconds: float) -> LoradexError:
        return LoradexError(
            "TooSlow", f"Loradex at {self.address}: expected an answer within {seconds:g} s, found none; try again"
        )


def close_socket(connection: HTTPConnection) -> None:
    """Wake up whoever waits for a connection."""
    if connection.sock is not None:
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def with_query(route: str, query: Query) -> str:
    """A route with its query."""
    encoded = urlencode([(name, str(value)) for name, value in query], errors="replace")
    return f"{route}?{encoded}" if encoded else route


def model_route(id: str, rest: str = "") -> str:
    """The route of a model; its id is one segment even if it holds dots or slashes."""
    return f"models/{quote(id, safe='', errors='replace').replace('.', '%2E')}{rest}"


def form_head(field: str, rest: str = "") -> bytes:
    """The head of a part of a form."""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{rest}\r\n\r\n'.encode()


def form_body(texts: bytes, heads: Sequence[bytes], uploads: Sequence[Upload], end: bytes) -> Iterator[bytes]:
    """The body of a form, in pieces."""
    yield texts
    for head, upload in zip(heads, uploads):
        yield head
        yield from upload.chunks()
        yield b"\r\n"
    yield end


def safe_filename(name: str) -> str:
    """A file's name for the head of a part: its end, ASCII without quotes."""
    base = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_. ") else "_" for c in base)[-100:]
