"""The gate in front of a trivial app: who gets in, to which addresses, and with how much."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from app.web import gate
from app.web.gate import HEADERS, LOOPBACK, Gate, Login, name_in, names_for
from app.web.uploads import Uploads

PREDICT, UPLOAD = "/gradio_api/run/predict", "/gradio_api/upload"
OURS = ("/drawings/", "/api/v1/", "/mcp")
KEPT = [
    "/config",
    "/",
    "/drawings/x.png",
    "/api/v1/zoo",
    "/api/v1/label",
    "/mcp",
    "/gradio_api/upload",
    "/gradio_api/run/predict",
    "/gradio_api/file=/tmp/x",
    "/assets/a.js",
]
SHUT = [
    "/gradio_api/proxy=http://a/",
    "/gradio_api/file=http://a/",
    "/gradio_api/file=https://a/",
    "/gradio_api/queue/join",
    "/gradio_api/queue/data",
    "/gradio_api/cancel",
    "/gradio_api/call/search",
    "/gradio_api/call/v2/search",
    "/gradio_api/api/predict",
    "/gradio_api/run/search",
    "/gradio_api/info",
    "/gradio_api/openapi.json",
    "/gradio_api/deep_link",
    "/gradio_api/runs",
    "/gradio_api/run-history/records",
    "/gradio_api/vibe-edit",
    "/gradio_api/vibe-code",
    "/gradio_api/process_recording",
    "/gradio_api/component_server",
    "/gradio_api/stream/1",
    "/gradio_api/file/etc/passwd",
    "/gradio_api/dev/reload",
    "/login",
    "/logout",
    "/monitoring",
    "/monitoring/summary",
    "/docs",
    "/openapi.json",
    "/gradio_api",
    "/configs",
    "/custom_component/1",
    "/pwa_icon",
    "/gradio_api/upload/../info",
    "/gradio_api/profiling/traces",
    "//config",
]
App = Callable[[Any, Any, Any], Awaitable[None]]


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


def asked(door: Gate, address: str, method: str = "GET", host: str = "localhost:7860", **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://localhost") as client:
            request = client.build_request(method, "/", headers={"host": host, **options.pop("headers", {})}, **options)
            request.url = request.url.copy_with(raw_path=address.encode())
            return await client.send(request)

    return asyncio.run(ask())


def is_refused(answer: httpx.Response, status: int, kind: str) -> bool:
    return (answer.status_code, answer.json()["error"]["kind"]) == (status, kind) and HEADERS.items() <= dict(answer.headers).items()


@pytest.mark.parametrize("address", KEPT)
def test_login_comes_before_everything(door: Callable[..., Gate], address: str) -> None:
    shut = door(Login.of("me", "long enough"))
    method = "POST" if address in (PREDICT, UPLOAD) else "GET"
    answer = asked(shut, address, method)
    assert is_refused(answer, 401, "LoginNeeded") and answer.headers["www-authenticate"].startswith("Basic ")
    assert asked(shut, address, method, headers={"authorization": httpx.BasicAuth("me", "long enough")._auth_header}).text == "inside"
    assert asked(door(), address, method).text == "inside"


@pytest.mark.parametrize("sent", ["Basic", "Basic !!", "Basic bWU6", "Bearer me:long enough", "me:long enough", "Basic bWU6bG9uZyBlbm91Z2g=x", "basic \xff"])
def test_a_wrong_password_is_answered_slowly(door: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch, sent: str) -> None:
    monkeypatch.setattr(gate, "PAUSE", 0.05)
    begun = time.perf_counter()
    assert is_refused(asked(door(Login.of("me", "long enough")), "/config", headers={"authorization": sent.encode("latin-1")}), 401, "LoginNeeded")
    assert time.perf_counter() - begun >= 0.05


def test_only_the_servers_names_are_answered(door: Callable[..., Gate]) -> None:
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:7860", "[::1]:7860"):
        assert asked(door(), "/config", host=host).text == "inside"
    for host in ("evil.example", "localhost.evil.example", "evil@localhost", "localhost/x", "127.0.0.1.nip.io", "", "x" * 300, "[", "localhost:port:1"):
        assert is_refused(asked(door(), "/config", host=host), 403, "UnknownHost"), host
    assert asked(door(names=None), "/config", host="any.example").text == "inside"
    assert names_for("0.0.0.0", ["a"]) is None and names_for("localhost", ["A.example"]) == LOOPBACK | {"a.example"}
    assert name_in("A.Example:80") == "a.example"


def test_pages_elsewhere_are_refused(door: Callable[..., Gate]) -> None:
    for origin in ("http://evil.example", "null", "http://localhost", "http://localhost:1", "http://localhost:7860.evil.example", "http://x@localhost:7860"):
        assert is_refused(asked(door(), PREDICT, "POST", headers={"origin": origin}), 403, "ForeignOrigin"), origin
    assert asked(door(), PREDICT, "POST", headers={"origin": "http://localhost:7860"}).text == "inside"


@pytest.mark.parametrize("address", SHUT)
def test_other_routes_are_shut(door: Callable[..., Gate], address: str) -> None:
    assert is_refused(asked(door(), address), 404, "NotFound")


def test_bodies_have_a_bound(door: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LARGEST_BODY", 10)
    monkeypatch.setattr(gate, "LARGEST_UPLOAD", 20)
    for address, largest in ((PREDICT, 10), ("/mcp", 10), (UPLOAD, 20), ("/api/v1/search", 20), ("/api/v1/label", 20)):
        assert asked(door(), address, "POST", content=b"x" * largest).text == "inside"
        assert is_refused(asked(door(), address, "POST", content=b"x" * (largest + 1)), 413, "TooLarge")


@pytest.mark.parametrize("size", ["-1", "+1", "1e3", "0x10", " ", "", "1_0", "1, 1", "²"])
def test_a_size_is_a_number(door: Callable[..., Gate], size: str) -> None:
    assert is_refused(asked(door(), PREDICT, "POST", headers={"content-length": size.encode("latin-1")}), 411, "LengthMissing")


def test_a_size_is_sent_and_no_giant(door: Callable[..., Gate]) -> None:
    async def pieces() -> Any:
        yield b"x"

    assert is_refused(asked(door(), UPLOAD, "POST", content=pieces()), 411, "LengthMissing")
    assert is_refused(asked(door(), UPLOAD, "POST", headers={"content-length": "9" * 5000}), 413, "TooLarge")


def test_uploads_wait_for_room(door: Callable[..., Gate], uploads: Uploads) -> None:
    (uploads.folder / "young").write_bytes(bytes(900))
    assert asked(door(), UPLOAD, "POST", content=bytes(100)).text == "inside"
    assert is_refused(asked(door(), UPLOAD, "POST", content=bytes(101)), 507, "UploadsFull")


def test_few_run_some_wait_the_rest_are_sent_away(door: Callable[..., Gate]) -> None:
    running, most = 0, 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        await PlainTextResponse("inside")(scope, receive, send)

    async def ask() -> list[httpx.Response]:
        busy = door(app=slow)
        busy.room._value = gate.AT_ONCE + 5
        async with httpx.AsyncClient(transport=httpx.ASGITransport(busy), base_url="http://localhost") as client:
            answers = await asyncio.gather(*(client.post(PREDICT) for _ in range(20)))
            return [*answers, await client.post(PREDICT)]

    *answers, after = asyncio.run(ask())
    sent_away = [answer for answer in answers if answer.status_code != 200]
    assert (most, len(sent_away), after.text) == (gate.AT_ONCE, 20 - gate.AT_ONCE - 5, "inside")
    assert all(is_refused(answer, 503, "Busy") for answer in sent_away)


def test_every_answer_has_the_headers_and_no_socket_opens(door: Callable[..., Gate], tmp_path: Path) -> None:
    assert HEADERS.items() <= dict(asked(door(), "/config").headers).items()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(door()({"type": "websocket", "path": "/config", "headers": [(b"host", b"localhost")]}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]
