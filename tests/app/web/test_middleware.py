"""The middleware around a trivial app: which requests are answered, and under which paths."""

import time
from collections.abc import Callable

import httpx
import pytest

from loradex.app.web import middleware
from loradex.app.web.middleware import LOOPBACK_HOSTS, AccessMiddleware, Login, allowed_host_names, host_name
from tests.app.web.asgi_client import PREDICT, UPLOAD, is_refusal, send_request

ALLOWED_PATHS = (
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
)
SHUT_PATHS = """
    /gradio_api/proxy=http://a/ /gradio_api/file=http://a/ /gradio_api/file=https://a/ /gradio_api/queue/join /gradio_api/queue/data /gradio_api/cancel
    /gradio_api/call/search /gradio_api/call/v2/search /gradio_api/api/predict /gradio_api/run/search /gradio_api/info /gradio_api/openapi.json
    /gradio_api/deep_link /gradio_api/runs /gradio_api/run-history/records /gradio_api/vibe-edit /gradio_api/vibe-code /gradio_api/process_recording
    /gradio_api/component_server /gradio_api/stream/1 /gradio_api/file/etc/passwd /gradio_api/dev/reload /login /logout /monitoring /monitoring/summary
    /docs /openapi.json /gradio_api /configs /custom_component/1 /pwa_icon /gradio_api/upload/../info /gradio_api/profiling/traces //config
"""


@pytest.mark.parametrize("path", ALLOWED_PATHS)
def test_every_path_requires_the_login(make_middleware: Callable[..., AccessMiddleware], path: str) -> None:
    protected = make_middleware(Login.of("me", "long enough"))
    method = "POST" if path in (PREDICT, UPLOAD) else "GET"
    response = send_request(protected, path, method)
    assert is_refusal(response, 401, "LoginNeeded") and response.headers["www-authenticate"].startswith("Basic ")
    assert (
        send_request(
            protected, path, method, headers={"authorization": httpx.BasicAuth("me", "long enough")._auth_header}
        ).text
        == "inside"
    )
    assert send_request(make_middleware(), path, method).text == "inside"


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic !!",
        "Basic bWU6",
        "Bearer me:long enough",
        "me:long enough",
        "Basic bWU6bG9uZyBlbm91Z2g=x",
        "basic \xff",
    ],
)
def test_a_wrong_password_is_answered_after_a_delay(
    make_middleware: Callable[..., AccessMiddleware], monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    monkeypatch.setattr(middleware, "WRONG_PASSWORD_DELAY", 0.05)
    start = time.perf_counter()
    assert is_refusal(
        send_request(
            make_middleware(Login.of("me", "long enough")),
            "/config",
            headers={"authorization": header.encode("latin-1")},
        ),
        401,
        "LoginNeeded",
    )
    assert time.perf_counter() - start >= 0.05


def test_only_the_servers_host_names_are_answered(make_middleware: Callable[..., AccessMiddleware]) -> None:
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:7860", "[::1]:7860"):
        assert send_request(make_middleware(), "/config", host=host).text == "inside"
    for host in (
        "evil.example",
        "localhost.evil.example",
        "evil@localhost",
        "localhost/x",
        "127.0.0.1.nip.io",
        "",
        "x" * 300,
        "[",
        "localhost:port:1",
    ):
        assert is_refusal(send_request(make_middleware(), "/config", host=host), 403, "UnknownHost"), host
    assert send_request(make_middleware(host_names=None), "/config", host="any.example").text == "inside"
    assert allowed_host_names("0.0.0.0", ["a"]) is None and allowed_host_names(
        "localhost", ["A.example"]
    ) == LOOPBACK_HOSTS | {"a.example"}
    assert host_name("A.Example:80") == "a.example"


def test_pages_of_other_origins_are_refused(make_middleware: Callable[..., AccessMiddleware]) -> None:
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost",
        "http://localhost:1",
        "http://localhost:7860.evil.example",
        "http://x@localhost:7860",
    ):
        assert is_refusal(
            send_request(make_middleware(), PREDICT, "POST", headers={"origin": origin}), 403, "ForeignOrigin"
        ), origin
    assert (
        send_request(make_middleware(), PREDICT, "POST", headers={"origin": "http://localhost:7860"}).text == "inside"
    )


@pytest.mark.parametrize("path", SHUT_PATHS.split())
def test_other_paths_are_refused(make_middleware: Callable[..., AccessMiddleware], path: str) -> None:
    assert is_refusal(send_request(make_middleware(), path), 404, "NotFound")
