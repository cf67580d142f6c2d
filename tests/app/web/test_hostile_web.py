"""A real server, asked by those who mean ill: no file of the machine leaves it, nothing grows, no error tells of its insides."""

import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.app.web.asking import PREDICT, UPLOAD
from tests.app.web.serving import REST, SHIPPED, Server, as_file, tells_nothing

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
pytestmark = pytest.mark.xdist_group("hostile")  # one server for all
SECRET = "the secret of this machine"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.safetensors"
    path.write_text(SECRET)
    return path


def test_a_path_is_no_upload(server: Server, secret: Path) -> None:
    before = server.files()
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
        taken = [
            server.run("label", [file], "a dog", 5),
            server.run("search", "", None, file, *REST),
            server.run("search", file, None, None, *REST),
        ]
        assert [answer.status_code for answer in taken] == [500] * 3 and all(map(tells_nothing, taken))
    for plain in (str(secret), [str(secret)], {"path": str(secret)}, [{"path": str(secret)}]):
        assert server.run("label", plain, "a dog", 5).status_code == 500
    assert server.files() == before


def test_no_address_is_fetched(server: Server) -> None:
    before = server.files()
    for address in ("http://localhost:1/x.safetensors", "https://example.com/x.png", f"{server.address}/config"):
        for answer in (
            server.run("label", [as_file(address)], "", 5),
            server.run("search", "", None, as_file(address, url=address), *REST),
        ):
            assert answer.json()["error"] == "file: expected one that was sent, found an address; send the file itself"
    data = {"url": "data:image/png;base64,aGFoYQ==", "meta": {"_type": "gradio.FileData"}}
    assert "best first" in server.run("search", "dog", None, data, *REST).json()["data"][1]
    assert server.files() == before


def test_the_file_route_serves_uploads_alone(server: Server, secret: Path) -> None:
    (sent,) = server.send(("x.html", b"<script>1</script>"))
    folder = Path(sent["path"]).parent
    (folder / "link").symlink_to(secret)
    (folder / "up").symlink_to(secret.parent)
    shut = [
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
        *map(str, shut),
        "../log",
        "file:///etc/passwd",
        "/proc/self/environ",
        "\0",
        "x" * 5000,
        "http://localhost/",
        "HTTP://localhost/",
        "",
    ]:
        for written in {quote(path), quote(path, safe="")}:
            answer = server.client.get(f"/gradio_api/file={written}")
            assert answer.status_code in range(400, 500) and SECRET not in answer.text and "root:" not in answer.text, (
                path
            )
    answer = server.client.get(f"/gradio_api/file={sent['path']}")
    assert (answer.text, answer.headers["content-disposition"]) == (
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
def test_odd_names_stay_in_their_folder(server: Server, name: str) -> None:
    before = {path for path in server.temporary.parent.iterdir() if path.name != "log"}
    (sent,) = server.send((name, b"x"))
    place = Path(sent["path"])
    assert (
        place.resolve() == place
        and server.temporary.resolve() in place.parents
        and place.parents[2] == server.temporary.resolve()
    )
    assert (
        len(place.name) < 256 and {path for path in server.temporary.parent.iterdir() if path.name != "log"} == before
    )
    answer = server.run("label", [sent], "a dog", 5)
    assert "expected" in answer.json()["data"][0] and tells_nothing(answer)
    place.unlink()


def test_what_is_no_lora_and_no_picture_is_told(server: Server) -> None:
    for file in server.send(
        ("x.safetensors", b"\xff" * 100), ("x.ckpt", b"\x80\x04."), ("empty.safetensors", b""), ("page.png", b"<html>")
    ):
        assert "expected" in server.run("label", [file], "", 5).json()["data"][0]
        said = server.run("search", "", None, file, *REST).json()["data"][0]
        assert "picture: expected a picture" in said and str(server.temporary) not in said
    (file,) = server.send(("x.safetensors", SHIPPED.read_bytes()))
    assert "expected 1 to 64, found 65" in server.run("label", [file] * 65, "", 5).json()["data"][0]
    assert server.client.post(UPLOAD, files=[("files", ("..", b"x"))]).status_code == 400
    for size in (5 * 2**30, 10**18):
        with socket.create_connection(("127.0.0.1", httpx.URL(server.address).port or 0), 10) as line:
            line.sendall(f"POST {UPLOAD} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
            assert line.recv(100).startswith(b"HTTP/1.1 413 ")


def test_odd_queries_are_answered_in_words(server: Server) -> None:
    for said in (
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
        answer = server.run("search", said, None, None, *REST)
        assert answer.status_code == 200 and "ld-" in answer.json()["data"][0] and tells_nothing(answer), said
    answer = server.run("search", "x" * 10**6, None, None, *REST)
    assert "at most 300 characters, found 1,000,000" in answer.json()["data"][0]
    escaped = server.run("search", "dog", None, None, [], [], [], "<img src=x onerror=alert(1)>", "", "any way").json()[
        "data"
    ][0]
    assert "&lt;img src=x onerror=alert(1)&gt;" in escaped and "<img src=x" not in escaped
    answer = server.client.get("/api/v1/search", params={"text": "x" * 30_000})
    assert answer.status_code == 422 and tells_nothing(answer)
    assert server.client.post("/gradio_api/run/predict", content=b"x" * (2 * 2**20 + 1)).status_code == 413


def test_wrong_types_are_answered_for_every_function(server: Server) -> None:
    functions = {
        (each["api_name"].rstrip("_0123456789"), len(each["inputs"])): each for each in server.functions()
    }  # one of each kind
    assert len(functions) > 15
    for (name, inputs), function in functions.items():
        for wrong in WRONG if inputs else WRONG[:2]:
            body = {"fn_index": function["id"], "data": [wrong] * inputs, "session_hash": "odd", "event_data": wrong}
            answer = server.client.post(PREDICT, json=body)
            assert answer.status_code in (200, 422, 500) and tells_nothing(answer), (name, wrong, answer.text[:500])
    for odd in (
        {},
        [],
        {"fn_index": 10**6, "data": []},
        {"fn_index": -1, "data": []},
        {"fn_index": 3, "data": "x"},
        {"fn_index": 3, "data": []},
        {"data": []},
    ):
        answer = httpx.post(f"{server.address}{PREDICT}", json=odd)
        assert answer.status_code >= 400 and tells_nothing(answer)
    for broken in (b"", b"{", b"[" * 10**5, b"\xff"):
        answer = server.client.post(PREDICT, content=broken, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422) and tells_nothing(answer)


def test_nothing_is_left_behind_after_sigterm(server: Server) -> None:
    """The last test to ask this server; after SIGINT is seen by those of the page."""
    server.send(("x", b"x"))
    server.client.close()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 128 + signal.SIGTERM and list(server.temporary.glob("loradex-*")) == []
