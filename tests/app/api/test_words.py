"""Words in weights by the API, the client and the agent tool, compared with those of the service."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from mcp import Client as McpClient
from starlette.testclient import TestClient

from loradex.app.api import zoo_reader
from loradex.app.api.rest import rest_api
from loradex.app.api.tools import agent_tools
from loradex.app.backend import Backend, WordsRun
from loradex.app.client import Client
from loradex.app.search.service import Loradex
from loradex.app.words import FileWords
from loradex.index import Evidence, Model, Position, Zoo
from tests.app.api.serving import served
from tests.app.api.test_tools import call, call_and_fail, run_client
from tests.app.api.test_uploads import error_message
from tests.app.describe.samples import write_lora
from tests.app.words.captioned import SHIPPED, write_captioned
from tests.app.words.shared import shared_service

OWN_WORDS = ["tovan", "dog", "kozu", "brelix", "mirku", "sefalo"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A LoRA with a word, one without, one of a family without a base model, and a file that is none."""
    folder = tmp_path_factory.mktemp("loras")
    write_lora(folder / "sd1.safetensors")
    (folder / "broken.safetensors").write_bytes(b"nonsense")
    names = ("sd1.safetensors", "broken.safetensors")
    return [write_captioned(folder / "kozu.safetensors", "kozu"), SHIPPED, *(folder / name for name in names)]


@pytest.fixture(scope="module")
def expected(files: list[Path]) -> list[FileWords]:
    service = shared_service()
    return [service.read_path(path, 3, OWN_WORDS) for path in files]


def test_the_route_equals_the_service(http: TestClient, files: list[Path], expected: list[FileWords]) -> None:
    uploads = [("files", (path.name, path.read_bytes())) for path in files]
    answer = http.post("words", files=uploads, data={"words": OWN_WORDS, "count": "3"})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [result["file"] for result in results] == [path.name for path in files]
    for result, found, path in zip(results, expected, files, strict=True):
        document = found.as_json() | {"file": path.name}
        document["reason"] = found.reason and found.reason.replace(str(path), path.name)
        assert result == pytest.approx(document)
    assert results[0]["words"][0]["word"] == "kozu" and len(results[0]["words"]) == 3
    assert "loradex base add --find" in results[2]["reason"]
    assert "loradex-" not in answer.text


@pytest.mark.parametrize(
    "fields", [{"count": "0"}, {"count": "101"}, {"words": ["dog", "x" * 301]}, {"labels": "x"}, {"words": [" "]}]
)
def test_bounds(http: TestClient, fields: dict[str, Any]) -> None:
    upload = [("files", (SHIPPED.name, SHIPPED.read_bytes()))]
    error_message(http.post("words", files=upload, data=fields), 422, "QueryError")


def test_files_are_required(http: TestClient) -> None:
    error_message(http.post("words", data={"words": "dog"}), 422, "QueryError")
    assert http.get("words").status_code == 405


def test_a_base_model_that_is_being_prepared(
    http: TestClient, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is refused after a while, and may be repeated; what is prepared goes on."""
    runs: list[WordsRun] = []

    def start(files: list[str], k: int, candidates: list[str]) -> WordsRun:
        runs.append(WordsRun(files))
        return runs[-1]

    monkeypatch.setattr(zoo_reader, "MAX_PREPARING", 0.0)
    monkeypatch.setattr(backend, "read_words", start)
    backend.preparing = (4000, 20_000)
    answer = http.post("words", files=[("files", (SHIPPED.name, SHIPPED.read_bytes()))])
    assert "found 4,000 of 20,000 texts encoded" in error_message(answer, 503, "Busy")
    assert answer.headers["retry-after"] and runs[0].stop.is_set()


def test_the_client(backend: Backend, files: list[Path], expected: list[FileWords]) -> None:
    app = FastAPI()
    app.mount("/api/v1", rest_api(backend))
    with served(app) as address, Client(address) as client:
        results = client.words(*files, words=OWN_WORDS, count=3)["results"]
    assert [result["words"] for result in results] == [found.as_json()["words"] for found in expected]


def test_the_agent_tool(backend: Backend, files: list[Path], expected: list[FileWords]) -> None:
    async def session(client: McpClient) -> None:
        paths = list(map(str, files))
        results = (await call(client, "read_words", paths=paths, words=OWN_WORDS, count=3))["results"]
        for result, found, path in zip(results, expected, files, strict=True):
            assert (result["file"], result["family"]) == (str(path), found.family)
            assert result["reason"] == (found.reason and found.reason.removeprefix(f"{path}: "))
            assert result["words"] == {word.word: round(word.probability, 3) for word in found.words}
            assert result["no_words"] == (None if found.nothing is None else round(found.nothing, 3))
        assert len(json.dumps(results[0])) < 400
        assert "300" in await call_and_fail(client, "read_words", paths=paths, words=["x" * 301])

    run_client(agent_tools(backend, local=True), session)


def test_models_and_hits_have_their_words(http: TestClient, backend: Backend, tmp_path: Path) -> None:
    """Words that the zoo holds of a model; whatever else it holds in their place is none."""
    shipped = backend.loradex
    vector = shipped.encoder.encode_texts(["dog"]).numpy()[0]
    backend.loradex = Loradex(tmp_path)
    backend.loradex.__dict__["encoder"] = shipped.encoder
    facts = {"a": {"words": [["kozu", 0.93], ["dog", 0.5], ["odd", "x"]]}, "b": {"words": "kozu"}, "c": {}}
    words = [{"word": "kozu", "probability": 0.93}, {"word": "dog", "probability": 0.5}]
    with Zoo.create(tmp_path, shipped.encoder.space.name, len(vector)) as backend.loradex.__dict__["zoo"]:
        models = [Model(id, "dog", "sd1", facts=facts[id]) for id in facts]
        backend.loradex.zoo.add(models, [{Evidence.WORDS: Position(vector, 9, -4)}] * 3)
        for answer in (
            http.get("search", params={"text": "dog"}).json()["hits"],
            http.get("models").json()["models"],
            [http.get(f"models/{id}").json() for id in facts],
        ):
            assert {model["id"]: model["words"] for model in answer} == {"a": words, "b": [], "c": []}

        async def session(client: McpClient) -> None:
            assert (await call(client, "describe_model", id="a"))["words"] == {"kozu": 0.93, "dog": 0.5}
            hits = (await call(client, "search_models", texts=["dog"]))["hits"]
            assert {hit["id"]: hit["words"] for hit in hits} == {"a": {"kozu": 0.93, "dog": 0.5}, "b": {}, "c": {}}

        run_client(agent_tools(backend, local=False), session)
