"""The gate in front of a trivial app: who gets in, and to which addresses."""

import time
from collections.abc import Callable

import httpx
import pytest

from loradex.app.web import gate
from loradex.app.web.middleware import LOOPBACK, Gate, Login, name_in, names_for
from tests.app.web.asking import PREDICT, UPLOAD, asked, is_refused

KEPT = (
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
SHUT = """
    /gradio_api/proxy=http://a/ /gradio_api/file=http://a/ /gradio_api/file=https://a/ /gradio_api/queue/join /gradio_api/queue/data /gradio_api/cancel
    /gradio_api/call/search /gradio_api/call/v2/search /gradio_api/api/predict /gradio_api/run/search /gradio_api/info /gradio_api/openapi.json
    /gradio_api/deep_link /gradio_api/runs /gradio_api/run-history/records /gradio_api/vibe-edit /gradio_api/vibe-code /gradio_api/process_recording
    /gradio_api/component_server /gradio_api/stream/1 /gradio_api/file/etc/passwd /gradio_api/dev/reload /login /logout /monitoring /monitoring/summary
    /docs /openapi.json /gradio_api /configs /custom_component/1 /pwa_icon /gradio_api/upload/../info /gradio_api/profiling/traces //config
"""


@pytest.mark.parametrize("address", KEPT)
def test_login_comes_before_everything(door: Callable[..., Gate], address: str) -> None:
    shut = door(Login.of("me", "long enough"))
    method = "POST" if address in (PREDICT, UPLOAD) else "GET"
    answer = asked(shut, address, method)
    assert is_refused(answer, 401, "LoginNeeded") and answer.headers["www-authenticate"].startswith("Basic ")
    assert (
        asked(shut, address, method, headers={"authorization": httpx.BasicAuth("me", "long enough")._auth_header}).text
        == "inside"
    )
    assert asked(door(), address, method).text == "inside"


@pytest.mark.parametrize(
    "sent",
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
def test_a_wrong_password_is_answered_slowly(
    door: Callable[..., Gate], monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    monkeypatch.setattr(gate, "PAUSE", 0.05)
    begun = time.perf_counter()
    assert is_refused(
        asked(door(Login.of("me", "long enough")), "/config", headers={"authorization": sent.encode("latin-1")}),
        401,
        "LoginNeeded",
    )
    assert time.perf_counter() - begun >= 0.05


def test_only_the_servers_names_are_answered(door: Callable[..., Gate]) -> None:
    for host in ("localhost", "LOCALHOST:1", "127.0.0.1:7860", "[::1]:7860"):
        assert asked(door(), "/config", host=host).text == "inside"
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
        assert is_refused(asked(door(), "/config", host=host), 403, "UnknownHost"), host
    assert asked(door(names=None), "/config", host="any.example").text == "inside"
    assert names_for("0.0.0.0", ["a"]) is None and names_for("localhost", ["A.example"]) == LOOPBACK | {"a.example"}
    assert name_in("A.Example:80") == "a.example"


def test_pages_elsewhere_are_refused(door: Callable[..., Gate]) -> None:
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost",
        "http://localhost:1",
        "http://localhost:7860.evil.example",
        "http://x@localhost:7860",
    ):
        assert is_refused(asked(door(), PREDICT, "POST", headers={"origin": origin}), 403, "ForeignOrigin"), origin
    assert asked(door(), PREDICT, "POST", headers={"origin": "http://localhost:7860"}).text == "inside"


@pytest.mark.parametrize("address", SHUT.split())
def test_other_routes_are_shut(door: Callable[..., Gate], address: str) -> None:
    assert is_refused(asked(door(), address), 404, "NotFound")
