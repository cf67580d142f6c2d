"""The client with a real server behind a login."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from loradex.app.api.rest import rest_api
from loradex.app.backend import Backend
from loradex.app.client import ApiError, Client
from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.app.search.service import Loradex
from tests.app.api.serving import served

SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[0]
LOGIN = ("me", "secret : ü")


class Gate:
    """An app behind a login, as served by `loradex serve`."""

    def __init__(self, app: Any) -> None:
        self.app, self.authorization = app, b"Basic " + base64.b64encode(":".join(LOGIN).encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != self.authorization:
            return await PlainTextResponse("log in", 401)(scope, receive, send)
        return await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def backend() -> Backend:
    return Backend(Loradex(SHIPPED_ZOO), roots=[])


@pytest.fixture(scope="module")
def address(backend: Backend) -> Iterator[str]:
    app = FastAPI()
    app.mount("/api/v1", rest_api(backend))
    with served(Gate(app)) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, LOGIN) as client:
        yield client


def test_responses_equal_those_of_the_library(client: Client, backend: Backend) -> None:
    loradex = backend.loradex
    models = list(loradex.zoo.models())
    assert client.zoo()["models"] == len(models)
    assert client.search("a cat", minus=["dog"], limit=3)["hits"] == loradex_hits(loradex, 3)
    with_picture = client.search(pictures=[SHIPPED_ZOO / str(models[3].preview)], limit=3, family=["mini-a"])
    assert {hit["family"] for hit in with_picture["hits"]} == {"mini-a"}
    assert [model["id"] for model in client.models(limit=70)] == [model.id for model in models]
    assert [model["id"] for model in client.models(family="mini-b")] == [
        model.id for model in models if model.family == "mini-b"
    ]
    assert client.model(models[0].id)["name"] == models[0].name
    assert client.drawing(models[0].id) == (SHIPPED_ZOO / str(models[0].preview)).read_bytes()
    assert client.similar(models[0].id)["hits"] == []
    assert client.duplicates()["compared"] == len(models)


def loradex_hits(loradex: Loradex, k: int) -> Any:
    from loradex.app.search.query import Query

    return loradex.search(Query.from_parts(["a cat"], ["dog"]), k).document()["hits"]


def test_files_are_uploaded(client: Client) -> None:
    expected = next(iter(Loradex(SHIPPED_ZOO).label([str(SHIPPED)], ["a dog", "a car"], 1))).document()
    (result,) = client.label(SHIPPED, labels=["a dog", "a car"], count=1)["results"]
    assert result == {**expected, "file": SHIPPED.name}
    assert client.inspect(SHIPPED, str(SHIPPED), hash=True)["files"][1]["sha256"]


def test_errors_have_kind_message_and_status(client: Client, address: str, tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="expected a text") as caught:
        client.search()
    assert (caught.value.kind, caught.value.status) == ("QueryError", 422)
    for id in ("none", "a/b", "..", "%2e%2e", "?x=1", "ü"):
        with pytest.raises(ApiError) as caught:
            client.model(id)
        assert caught.value.status == 404
    with pytest.raises(ApiError, match="below none") as caught:
        client.index("/")
    assert client.index_run()["state"] == "none"
    assert client.stop()["state"] == "none"
    with Client(address, ("me", "wrong")) as wrong_login, pytest.raises(ApiError, match="give the login") as caught:
        wrong_login.zoo()
    assert caught.value.status == 401
    with (
        Client("http://127.0.0.1:1") as no_server,
        pytest.raises(ApiError, match="check the address and the server") as caught,
    ):
        no_server.zoo()
    assert caught.value.status is None
    with pytest.raises(ApiError, match="expected a file to send"):
        client.label(tmp_path / "none.safetensors")
    with Client(f"{address}/elsewhere", LOGIN) as wrong_address, pytest.raises(ApiError, match="serves with --api"):
        wrong_address.zoo()


def test_the_client_imports_no_torch() -> None:
    code = (
        "import sys, loradex.app.client; sys.exit(bool({'torch', 'fastapi', 'gradio', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
