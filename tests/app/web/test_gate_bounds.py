"""The gate in front of a trivial app: how much it lets through at a time."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from loradex.app.web import gate
from loradex.app.web.middleware import HEADERS, Gate
from loradex.app.web.upload_folder import Uploads
from tests.app.web.asking import PREDICT, UPLOAD, asked, is_refused


def test_bodies_have_a_bound(door: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LARGEST_BODY", 10)
    monkeypatch.setattr(gate, "LARGEST_UPLOAD", 20)
    for address, largest in ((PREDICT, 10), ("/mcp", 10), (UPLOAD, 20), ("/api/v1/search", 20), ("/api/v1/label", 20)):
        assert asked(door(), address, "POST", content=b"x" * largest).text == "inside"
        assert is_refused(asked(door(), address, "POST", content=b"x" * (largest + 1)), 413, "TooLarge")


@pytest.mark.parametrize("size", ["-1", "+1", "1e3", "0x10", " ", "", "1_0", "1, 1", "²"])
def test_a_size_is_a_number(door: Callable[..., Gate], size: str) -> None:
    assert is_refused(
        asked(door(), PREDICT, "POST", headers={"content-length": size.encode("latin-1")}), 411, "LengthMissing"
    )


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


def test_every_answer_has_the_headers_and_no_socket_opens(door: Callable[..., Gate]) -> None:
    assert HEADERS.items() <= dict(asked(door(), "/config").headers).items()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(door()({"type": "websocket", "path": "/config", "headers": [(b"host", b"localhost")]}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]
