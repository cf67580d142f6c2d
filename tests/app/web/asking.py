"""How tests ask a gate."""

import asyncio
from typing import Any

import httpx

from loradex.app.web.middleware import HEADERS, Gate

PREDICT, UPLOAD = "/gradio_api/run/predict", "/gradio_api/upload"


def asked(
    door: Gate, address: str, method: str = "GET", host: str = "localhost:7860", **options: Any
) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://localhost") as client:
            request = client.build_request(method, "/", headers={"host": host, **options.pop("headers", {})}, **options)
            request.url = request.url.copy_with(raw_path=address.encode())
            return await client.send(request)

    return asyncio.run(ask())


def is_refused(answer: httpx.Response, status: int, kind: str) -> bool:
    return (answer.status_code, answer.json()["error"]["kind"]) == (status, kind) and HEADERS.items() <= dict(
        answer.headers
    ).items()
