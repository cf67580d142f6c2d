"""Hostile requests to a real server: it serves no files of the machine, stores nothing and hides its internals."""

import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.app.web.asgi_client import PREDICT, UPLOAD
from tests.app.web.live_server import NO_FILTERS, SHIPPED, Server, as_file, hides_internals

WRONG: list[Any] = [
    None,
    1e308,
    True,
    "x",
    [[[]]],
    {"path": 5, "meta": {"_type": "gradio.FileData"}},
    {"__type__": "update"},
    "\0\x1b[2J",
]
pytestmark = pytest.mark.xdist_group("hostile")  # all use one server
SECRET = "the secret of this machine"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.safetensors"
    path.write_text(SECRET)
    return path


def test_a_path_is_not_accepted_as_an_upload(server: Server, secret: Path) -> None:
    before = server.stored_files()
    paths = (
        "/etc/passwd",
        server.zoo / "catalogue.sqlite",
        f"{server.temporary}/../log",
        f"file://{secret}",
        "/proc/self/environ",
        ".",
    )
    odd = (
        as_file(secret, url=f"file://{secret}"),
        as_file(secret, is_stream=True),
        as_file(secret, orig_name="x.svg"),
        as_file(secret),
    )
    for file in (*odd, *map(as_file, paths)):
        responses = [
            server.call("label", [file], "a dog", 5),
            server.call("search", "", None, file, *NO_FILTERS),
            server.call("search", file, None, None, *NO_FILTERS),
        ]
        assert [response.status_code for response in responses] == [500] * 3 and all(map(hides_internals, responses))
    for plain in (str(secret), [str(secret)], {"path": str(secret)}, [{"path": str(secret)}]):
        assert server.call("label", plain, "a dog", 5).status_code == 500
    assert server.stored_files() == before


def test_addresses_are_not_fetched(server: Server) -> None:
    before = server.stored_files()
    for address in ("http://localhost:1/x.safetensors", "https://example.com/x.png", f"{server.address}/config"):
        for response in (
            server.call("label", [as_file(address)], "", 5),
            server.call("search", "", None, as_file(address, url=address), *NO_FILTERS),
        ):
            assert (
                response.json()["error"] == "file: expected an uploaded file, found an address; upload the file itself"
            )
    data = {"url": "data:image/png;base64,aGFoYQ==", "meta": {"_type": "gradio.FileData"}}
    assert "best first" in server.call("search", "dog", None, data, *NO_FILTERS).json()["data"][1]
    assert server.stored_files() == before


def test_the_file_route_serves_only_uploads(server: Server, secret: Path) -> None:
    (file,) = server.upload(("x.html", b"<script>1</script>"))
    folder = Path(file["path"]).parent
    (folder / "link").symlink_to(secret)
    (folder / "up").symlink_to(secret.parent)
    forbidden = [
        secret,
        "/etc/passwd",
        server.zoo / "catalogue.sqlite",
        server.log,
        folder,
        folder / "link",
        folder / "up" / secret.name,
        f"{folder}/../../../log",
    ]
    for path in [
        *map(str, forbidden),
        "../log",
        "file:///etc/passwd",
        "/proc/self/environ",
        "\0",
        "x" * 5000,
        "http://localhost/",
        "HTTP://localhost/",
        "",
    ]:
        for quoted in {quote(path), quote(path, safe="")}:
            response = server.client.get(f"/gradio_api/file={quoted}")
            assert (
                response.status_code in range(400, 500) and SECRET not in response.text and "root:" not in response.text
            ), path
    response = server.client.get(f"/gradio_api/file={file['path']}")
    assert (response.text, response.headers["content-disposition"]) == (
        "<script>1</script>",
        'attachment; filename="x.html"',
    )
    for route in (
        "drawings/..%2f..%2fetc%2fpasswd.png",
        "static/..%2f..%2f..%2fetc/passwd",
        "assets/..%2f..%2fetc/passwd",
        "api/v1/models/..%2fx/drawing",
    ):
        assert server.client.get(f"/{route}").status_code in (403, 404), route
    assert server.client.post("/mcp", headers={"origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "name",
    [
        "../../../../evil",
        "/etc/evil",
        "a\0b",
        "x" * 4096,
        "\u202egnp.x",
        "<img src=x onerror=alert(1)>",
        "C:\\evil",
        "\x1b[2J",
    ],
)
def test_uploads_with_odd_names_stay_in_the_folder(server: Server, name: str) -> None:
    before = {path for path in server.temporary.parent.iterdir() if path.name != "log"}
    (file,) = server.upload((name, b"x"))
    path = Path(file["path"])
    assert (
        path.resolve() == path
        and server.temporary.resolve() in path.parents
        and path.parents[2] == server.temporary.resolve()
    )
    assert len(path.name) < 256 and {path for path in server.temporary.parent.iterdir() if path.name != "log"} == before
    response = server.call("label", [file], "a dog", 5)
    assert "expected" in response.json()["data"][0] and hides_internals(response)
    path.unlink()


def test_files_that_are_no_lora_or_image_get_an_error(server: Server) -> None:
    for file in server.upload(
        ("x.safetensors", b"\xff" * 100), ("x.ckpt", b"\x80\x04."), ("empty.safetensors", b""), ("page.png", b"<html>")
    ):
        assert "expected" in server.call("label", [file], "", 5).json()["data"][0]
        html = server.call("search", "", None, file, *NO_FILTERS).json()["data"][0]
        assert "picture: expected a picture" in html and str(server.temporary) not in html
    (file,) = server.upload(("x.safetensors", SHIPPED.read_bytes()))
    assert "expected 1 to 64, found 65" in server.call("label", [file] * 65, "", 5).json()["data"][0]
    assert server.client.post(UPLOAD, files=[("files", ("..", b"x"))]).status_code == 400
    for size in (5 * 2**30, 10**18):
        with socket.create_connection(("127.0.0.1", httpx.URL(server.address).port or 0), 10) as connection:
            connection.sendall(f"POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_odd_queries_get_an_answer_or_an_error(server: Server) -> None:
    for text in (
        "",
        " ",
        "\0",
        "\x1b[31m",
        "\u202e\u05d0\u05d1",
        "א ب",
        "\ufeff",
        "🦄" * 300,
        "-",
        "+",
        "x^1e999",
        "x^nan",
        "%s{}{{7*7}}${1+1}",
        "' OR 1=1 --",
    ):
        response = server.call("search", text, None, None, *NO_FILTERS)
        assert response.status_code == 200 and "ld-" in response.json()["data"][0] and hides_internals(response), text
    response = server.call("search", "x" * 10**6, None, None, *NO_FILTERS)
    assert "at most 300 characters, found 1,000,000" in response.json()["data"][0]
    escaped = server.call("search", "dog", None, None, [], [], [], "<img src=x onerror=alert(1)>", "", []).json()[
        "data"
    ][0]
    assert "&lt;img src=x onerror=alert(1)&gt;" in escaped and "<img src=x" not in escaped
    response = server.client.get("/api/v1/search", params={"text": "x" * 30_000})
    assert response.status_code == 422 and hides_internals(response)
    assert server.client.post("/gradio_api/run/predict", content=b"x" * (2 * 2**20 + 1)).status_code == 413


def test_wrong_types_get_an_error_from_every_function(server: Server) -> None:
    functions = {
        (entry["api_name"].rstrip("_0123456789"), len(entry["inputs"])): entry for entry in server.functions()
    }  # one of each kind
    assert len(functions) > 15
    for (name, inputs), function in functions.items():
        for wrong in WRONG if inputs else WRONG[:2]:
            body = {"fn_index": function["id"], "data": [wrong] * inputs, "session_hash": "odd", "event_data": wrong}
            response = server.client.post(PREDICT, json=body)
            assert response.status_code in (200, 422, 500) and hides_internals(response), (
                name,
                wrong,
                response.text[:500],
            )
    for odd in (
        {},
        [],
        {"fn_index": 10**6, "data": []},
        {"fn_index": -1, "data": []},
        {"fn_index": 3, "data": "x"},
        {"fn_index": 3, "data": []},
        {"data": []},
    ):
        response = httpx.post(f"{server.address}{PREDICT}", json=odd)
        assert response.status_code >= 400 and hides_internals(response)
    for broken in (b"", b"{", b"[" * 10**5, b"\xff"):
        response = server.client.post(PREDICT, content=broken, headers={"content-type": "application/json"})
        assert response.status_code in (400, 422) and hides_internals(response)


def test_sigterm_leaves_no_files(server: Server) -> None:
    """The last test with this server; the tests of the page end theirs by SIGINT."""
    server.upload(("x", b"x"))
    server.client.close()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 128 + signal.SIGTERM and list(server.temporary.glob("loradex-*")) == []
