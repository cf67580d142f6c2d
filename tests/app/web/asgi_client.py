"""Requests to the middleware without a server."""

import asyncio
from typing import Any

import httpx

from loradex.app.web.middleware import SECURITY_HEADERS, AccessMiddleware

PREDICT, UPLOAD = "/gradio_api/run/predict", "/gradio_api/upload"


def send_request(
    app: AccessMiddleware, path: str, method: str = "GET", host: str = "localhost:7860", **options: Any
) -> httpx.Response:
    """Send a request whose path is not normalised."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            request = client.build_request(method, "/", headers={"host": host, **options.pop("headers", {})}, **options)
            request.url = request.url.copy_with(raw_path=path.encode())
            return await client.send(request)

    return asyncio.run(send())


def is_refusal(response: httpx.Response, status: int, kind: str) -> bool:
    """Whether a response is an error of this status and kind, with the security headers."""
    error = (response.status_code, response.json()["error"]["kind"])
    return error == (status, kind) and SECURITY_HEADERS.items() <= dict(response.headers).items()
