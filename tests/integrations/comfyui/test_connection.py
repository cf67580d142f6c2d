"""Servers that are not there, not Loradex, not willing or not well: each gives one plain line."""

import json
import socket
import time
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from tests.integrations.comfyui.hostile_server import Answer, answering, fixed

JSON = "application/json"


@pytest.fixture
def connection(pack: ModuleType) -> ModuleType:
    return import_module(f"{pack.__name__}.connection")


def failure(connection: ModuleType, answer: Answer, **options: Any) -> tuple[str, str, str | None]:
    with answering(answer) as (address, _), pytest.raises(connection.LoradexError) as caught:
        connection.Server(address, options.pop("login", None)).get("zoo", **options)
    assert "\n" not in caught.value.message
    return caught.value.kind, caught.value.message, caught.value.command


def test_no_server(connection: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(connection.LoradexError) as caught:
        connection.Server(f"http://127.0.0.1:{port}").get("zoo")
    assert (caught.value.kind, caught.value.command) == ("NoServer", f"loradex serve --api --port {port}")
    assert f"http://127.0.0.1:{port}" in caught.value.message


def test_the_command_names_no_port_for_the_usual_one(connection: ModuleType) -> None:
    assert connection.serve_command("http://127.0.0.1:7860") == "loradex serve --api"
    assert connection.serve_command("https://loras.example:8000") == "loradex serve --api"


@pytest.mark.parametrize(
    ("answer", "kind", "found"),
    [
        (fixed("200 OK", "text/html", b"<html>a page</html>"), "NoApi", "no JSON document"),
        (fixed("200 OK", JSON, b"[1, 2]"), "NoApi", "no JSON document"),
        (fixed("200 OK", JSON, b"[" * 100_000), "NoApi", "no JSON document"),
        (fixed("404 Not Found", "text/html", b"nothing"), "NoApi", "status 404"),
        (fixed("302 Found", "text/html", b"", "Location: http://127.0.0.1:1/"), "NoApi", "status 302"),
        (fixed("404 Not Found", JSON, b'{"error": {"kind": "NotFound", "message": "no"}}'), "NoApi", "without the API"),
        (
            fixed("422 No", JSON, b'{"error": {"kind": "QueryError", "message": "two\\nlines"}}'),
            "QueryError",
            "two lines",
        ),
        (fixed("500 Oh", JSON, b'{"error": "short"}'), "NoApi", "status 500"),
        (lambda each: each.sendall(b"\x16\x03 rubbish\r\n\r\n"), "NoServer", "BadStatusLine"),
        (lambda each: None, "NoServer", "found none"),
    ],
)
def test_rubbish(connection: ModuleType, answer: Answer, kind: str, found: str) -> None:
    found_kind, message, _ = failure(connection, answer)
    assert found_kind == kind and found in message


def test_a_slow_server_is_left(connection: ModuleType) -> None:
    def trickle(each: socket.socket) -> None:
        each.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            each.sendall(b" ")
            time.sleep(0.05)

    start = time.monotonic()
    assert failure(connection, trickle, seconds=0.6)[0] == "TooSlow"
    assert time.monotonic() - start < 5


def test_an_endless_answer_is_left(connection: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_ANSWER_BYTES", 100)
    assert failure(connection, fixed("200 OK", JSON, b"{}" + b" " * 1000))[:1] == ("NoApi",)


def test_a_wrong_login_and_none(connection: ModuleType) -> None:
    refusal = fixed("401 Unauthorized", JSON, b'{"error": {"kind": "LoginNeeded", "message": "x"}}')
    kind, message, _ = failure(connection, refusal)
    assert kind == "LoginNeeded" and "found none" in message and "user/__loradex/login.txt" in message
    kind, message, _ = failure(connection, refusal, login="name:secret")
    assert kind == "LoginNeeded" and "a wrong one" in message and "secret" not in message


def test_ids_stay_one_segment_of_the_route(connection: ModuleType) -> None:
    with answering(fixed("200 OK", JSON, b"{}")) as (address, requests):
        connection.Server(address, "a:b").get(connection.model_route("../x/ü?\n"))
    line, *headers = requests[0].decode().split("\r\n")
    assert line == "GET /api/v1/models/%2E%2E%2Fx%2F%C3%BC%3F%0A HTTP/1.1"
    assert "Authorization: Basic YTpi" in headers


def test_a_form_holds_texts_and_files(connection: ModuleType) -> None:
    with answering(fixed("200 OK", JSON, json.dumps({"fine": True}).encode())) as (address, requests):
        upload = connection.Upload("picture", 'a"b\r\n.png', b"bytes")
        assert connection.Server(address).post_form("search", [("text", "é")], [upload]) == {"fine": True}
    head, _, body = requests[0].decode().partition("\r\n\r\n")
    assert f"Content-Length: {len(body.encode())}" in head
    assert 'name="text"\r\n\r\né\r\n' in body and 'filename="a_b__.png"\r\n\r\nbytes\r\n' in body
