"""The middleware around a trivial app: sizes of requests, room for uploads, and concurrent calls."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from loradex.app.web import middleware
from loradex.app.web.middleware import SECURITY_HEADERS, AccessMiddleware
from loradex.app.web.upload_folder import UploadFolder
from tests.app.web.asgi_client import PREDICT, UPLOAD, is_refusal, send_request


def test_body_size_is_limited(
    make_middleware: Callable[..., AccessMiddleware], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_BODY_SIZE", 10)
    monkeypatch.setattr(middleware, "MAX_UPLOAD_SIZE", 20)
    for path, limit in (
        (PREDICT, 10),
        ("/mcp", 10),
        (UPLOAD, 20),
        ("/api/v1/search", 20),
        ("/api/v1/label", 20),
        ("/api/v1/words", 20),
    ):
        assert send_request(make_middleware(), path, "POST", content=b"x" * limit).text == "inside"
        assert is_refusal(send_request(make_middleware(), path, "POST", content=b"x" * (limit + 1)), 413, "TooLarge")


@pytest.mark.parametrize("size", ["-1", "+1", "1e3", "0x10", " ", "", "1_0", "1, 1", "²"])
def test_content_length_must_be_a_number(make_middleware: Callable[..., AccessMiddleware], size: str) -> None:
    assert is_refusal(
        send_request(make_middleware(), PREDICT, "POST", headers={"content-length": size.encode("latin-1")}),
        411,
        "LengthMissing",
    )


def test_content_length_is_required_and_limited(make_middleware: Callable[..., AccessMiddleware]) -> None:
    async def chunks() -> Any:
        yield b"x"

    assert is_refusal(send_request(make_middleware(), UPLOAD, "POST", content=chunks()), 411, "LengthMissing")
    assert is_refusal(
        send_request(make_middleware(), UPLOAD, "POST", headers={"content-length": "9" * 5000}), 413, "TooLarge"
    )


def test_uploads_need_room(make_middleware: Callable[..., AccessMiddleware], uploads: UploadFolder) -> None:
    (uploads.folder / "young").write_bytes(bytes(900))
    assert send_request(make_middleware(), UPLOAD, "POST", content=bytes(100)).text == "inside"
    assert is_refusal(send_request(make_middleware(), UPLOAD, "POST", content=bytes(101)), 507, "UploadsFull")


def test_calls_beyond_those_that_run_or_wait_are_refused(make_middleware: Callable[..., AccessMiddleware]) -> None:
    running, max_running = 0, 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal running, max_running
        running += 1
        max_running = max(max_running, running)
        await asyncio.sleep(0.01)
        running -= 1
        await PlainTextResponse("inside")(scope, receive, send)

    async def send_all() -> list[httpx.Response]:
        busy = make_middleware(app=slow)
        busy.accepted_slots._value = middleware.MAX_RUNNING + 5
        async with httpx.AsyncClient(transport=httpx.ASGITransport(busy), base_url="http://localhost") as client:
            responses = await asyncio.gather(*(client.post(PREDICT) for _ in range(20)))
            return [*responses, await client.post(PREDICT)]

    *responses, last = asyncio.run(send_all())
    refused = [response for response in responses if response.status_code != 200]
    assert (max_running, len(refused), last.text) == (middleware.MAX_RUNNING, 20 - middleware.MAX_RUNNING - 5, "inside")
    assert all(is_refusal(response, 503, "Busy") for response in refused)


def test_every_response_has_the_headers_and_websockets_are_closed(
    make_middleware: Callable[..., AccessMiddleware],
) -> None:
    assert SECURITY_HEADERS.items() <= dict(send_request(make_middleware(), "/config").headers).items()
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(
        make_middleware()({"type": "websocket", "path": "/config", "headers": [(b"host", b"localhost")]}, None, send)
    )  # type: ignore[arg-type]
    assert messages == [{"type": "websocket.close", "code": 1008}]
