"""Responses of the API, compared with those of the library and the command line."""

import json
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from loradex.app.api.errors import Busy
from loradex.app.api.limiter import RequestLimiter
from loradex.app.api.requests import ModelFields, SearchFields
from loradex.app.backend import Backend, IndexingRun, State
from loradex.app.commands.main import app
from loradex.app.models import model_document
from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.app.search.lookalikes import Library
from loradex.app.search.query import Query
from loradex.app.search.service import Loradex
from loradex.index import Evidence, Model, Position, Zoo
from scripts.openapi import DOCUMENT, render_openapi
from tests.app.indexing.without_expert import ADVICE, write_files

SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[:3]


def without_paging(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("took_ms", "limit", "next")}


def test_openapi_json_is_current() -> None:
    assert DOCUMENT.read_text("utf-8") == render_openapi(), "update it with: python -m scripts.openapi"
    operations = [
        operation["operationId"]
        for path in json.loads(render_openapi())["paths"].values()
        for operation in path.values()
    ]
    assert len(set(operations)) == len(operations) == 15


def test_search_equals_that_of_the_library(http: TestClient, loradex: Loradex) -> None:
    id = loradex.search("a cat", 1).hits[0].model.id
    query = Query.from_parts(["a cat", "wheel^0.5"], ["a clock"], models=[id])
    for offset in (0, 7):
        answer = http.get(
            "search",
            params={"text": ["a cat", "wheel^0.5"], "minus": "a clock", "model": id, "limit": 7, "offset": offset},
        )
        assert answer.status_code == 200, answer.text
        expected = loradex.search(query, 7, offset=offset).document()
        assert without_paging(answer.json()) == without_paging(expected)
        assert (answer.json()["limit"], answer.json()["next"]) == (7, offset + 7)
    last = http.get("search", params={"text": "cat", "family": "mini-b", "limit": 999}).json()
    assert last["next"] is None
    assert {hit["family"] for hit in last["hits"]} == {"mini-b"}
    assert len(last["hits"]) == loradex.zoo.counts("family")["mini-b"]


def test_searches_are_limited_to_kinds_of_evidence(http: TestClient, backend: Backend, tmp_path: Path) -> None:
    """Repeated values, and the name of both kinds that are read from weights."""
    shipped = backend.loradex
    vector = shipped.encoder.encode_texts(["dog"]).numpy()[0]
    kinds = {"a": [Evidence.PICTURE], "b": [Evidence.PREVIEW, Evidence.WORDS], "c": [Evidence.PREVIEW], "d": []}
    backend.loradex = loradex = Loradex(tmp_path)
    loradex.__dict__["encoder"] = shipped.encoder
    with Zoo.create(tmp_path, shipped.encoder.space.name, len(vector)) as loradex.__dict__["zoo"]:
        positions = [{kind: Position(vector, 9, -4) for kind in each} for each in kinds.values()]
        loradex.zoo.add([Model(id, "dog", "f", path=f"/loras/{id}.safetensors") for id in kinds], positions)
        for found_by, expected in (
            (["picture"], "a"),
            (["preview"], "bc"),
            (["weights"], "ab"),
            (["picture", "metadata"], "ad"),
            ([], "abcd"),
        ):
            hits = http.get("search", params={"text": "dog", "found_by": found_by}).json()["hits"]
            assert {hit["id"] for hit in hits} == set(expected)
            models = http.get("models", params={"found_by": found_by}).json()["models"]
            assert "".join(model["id"] for model in models) == expected
        (hit,) = (hit for hit in http.get("search", params={"text": "dog"}).json()["hits"] if hit["id"] == "b")
        assert (hit["found_by"], hit["matched"], set(hit["scores"])) == (
            "words",
            ["words", "preview", "metadata"],
            {"words", "preview"},
        )
        assert (spread := shipped.encoder.query_spread) is not None
        assert hit["score"] == pytest.approx(9 * spread.scale(vector) - 4, abs=1e-3)
        assert hit["place"] == "/loras/b.safetensors"
        bare = http.get("search", params={"text": "dog", "found_by": "metadata"}).json()["hits"][0]
        assert (bare["score"], bare["scores"], bare["probability"]) == (None, {}, None)
        assert [http.get(f"models/{id}").json()["evidence"] for id in "bd"] == [["words", "preview"], []]
        assert http.get("zoo").json()["found_by"] == {"preview": 2, "picture": 1, "words": 1, "metadata": 1}


def test_the_filter_found_by_takes_what_it_took_before(http: TestClient) -> None:
    """A single name or null, where it is a list now: in queries, forms and the fields of Python code alike."""
    picture = sorted((SHIPPED_ZOO / "previews").glob("*.png"))[0]
    for value, count in (("weights", 300), ("picture", 300), ("metadata", 0)):
        for fields in (SearchFields, ModelFields):
            assert fields.model_validate({"found_by": value}).found_by == [value]
        assert len(http.get("models", params={"found_by": value, "limit": 500}).json()["models"]) == count
        form = {"found_by": value, "limit": "3"}
        found = http.post("search", files=[("picture", ("a.png", picture.read_bytes()))], data=form)
        assert found.status_code == 200 and len(found.json()["hits"]) == min(count, 3), found.text
    assert SearchFields.model_validate({"found_by": None}).found_by == []


def test_search_with_a_picture_hides_its_path(http: TestClient, loradex: Loradex) -> None:
    picture = sorted((SHIPPED_ZOO / "previews").glob("*.png"))[0]
    files = [("picture", ("../../my picture.PNG", picture.read_bytes()))]
    answer = http.post("search", files=files, data={"text": "a cat", "limit": "5"})
    assert answer.status_code == 200, answer.text
    expected = loradex.search(Query.from_parts(["a cat"], pictures=[str(picture)]), 5).document()
    assert answer.json()["hits"] == expected["hits"]
    assert answer.json()["query"]["text"] == "a cat + picture my picture.PNG"
    broken = http.post("search", files=[("picture", ("broken.png", b"no picture"))])
    assert (broken.status_code, broken.json()["error"]["kind"]) == (422, "QueryError")
    assert broken.json()["error"]["message"].startswith("broken.png: expected a picture")


def test_zoo_models_and_drawings(http: TestClient, loradex: Loradex) -> None:
    models = list(loradex.zoo.models())
    zoo = http.get("zoo").json()
    assert (zoo["name"], zoo["models"], zoo["space"]) == ("miniature", len(models), loradex.zoo.space)
    assert zoo["families"] == loradex.zoo.counts("family")
    assert zoo["waiting_for_expert"] == {}
    assert str(SHIPPED_ZOO) not in json.dumps(zoo)
    model = http.get(f"models/{models[0].id}").json()
    expected = model_document(models[0], str(SHIPPED_ZOO)) | {"files": [], "words": []}
    assert {**model, "files": []} == json.loads(json.dumps(expected))
    answer = http.get(f"models/{models[0].id}/drawing")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (SHIPPED_ZOO / str(models[0].preview)).read_bytes()
    assert (
        http.get(f"models/{models[0].id}/drawing", headers={"if-none-match": answer.headers["etag"]}).status_code == 304
    )
    for route in ("models/none", "models/none/drawing", "models/none/similar"):
        assert (http.get(route).status_code, http.get(route).json()["error"]["kind"]) == (404, "ModelMissing")


def zoo_of_metadata(folder: Path, ids: list[str]) -> Zoo:
    zoo = Zoo.create(folder, "s", 4)
    zoo.add([Model(id, f"name {id}", "f") for id in ids], [None] * len(ids))
    return zoo


class LoradexWithoutEncoder(Loradex):
    """Serves an open zoo without loading an encoder."""

    def __init__(self, zoo: Zoo) -> None:
        super().__init__(zoo.folder)
        self.__dict__["zoo"] = zoo


def test_paging_while_models_are_added(http: TestClient, backend: Backend, tmp_path: Path) -> None:
    ids = [f"{number:03}" for number in range(0, 100, 2)]
    with zoo_of_metadata(tmp_path, ids) as zoo:
        backend.loradex = LoradexWithoutEncoder(zoo)
        seen, cursor = list[str](), ""
        while cursor is not None:
            page = http.get("models", params={"limit": 7, "cursor": cursor}).json()
            seen += [model["id"] for model in page["models"]]
            cursor = page["next"]
            new = f"{len(seen) - 5:03}"  # some before the cursor and some after
            zoo.add([Model(new, "new", "f")], [None])
        assert seen == sorted(set(seen))
        assert set(ids) <= set(seen)
        page = http.get("models", params={"family": "other"}).json()
        assert page == {"models": [], "next": None}


def test_texts_that_are_invalid_in_utf8_or_json(http: TestClient, backend: Backend, tmp_path: Path) -> None:
    with zoo_of_metadata(tmp_path, []) as zoo:
        backend.loradex = LoradexWithoutEncoder(zoo)
        facts = {"notes": "\ud800", "labels": "no list", "ranks": 10**30, "odd": [[{"\udce9": None}]]}
        odd = Model("odd", "caf\udce9 <img onerror=x>\x1b[2J", "f", path="/x/\udce9", facts=facts)
        zoo.add([odd, replace(odd, id="plain")], [None, None])
        assert http.get("models").json()["models"][0]["name"] == "caf\\xe9 <img onerror=x>\x1b[2J"
        assert http.get("models/odd").json()["facts"] == {**facts, "notes": "\\ud800", "odd": [[{"\\xe9": None}]]}
        assert http.get("models/odd/drawing").json()["error"]["kind"] == "DrawingMissing"


def test_look_alikes_equal_those_of_the_command_line(http: TestClient, backend: Backend, tmp_path: Path) -> None:
    for number, path in enumerate((SHIPPED[0], SHIPPED[0], SHIPPED[1])):
        (tmp_path / "loras").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "loras" / f"lora{number}.safetensors")
    CliRunner().invoke(app, ["index", str(tmp_path / "loras"), "--zoo", str(tmp_path / "zoo")])
    backend.loradex = Loradex(tmp_path / "zoo")
    expected = Library.from_zoo(tmp_path / "zoo", lambda *_: None)
    duplicates = http.get("duplicates").json()
    assert duplicates["groups"] == json.loads(json.dumps(expected.duplicates().document()))["groups"]
    assert (duplicates["compared"], duplicates["found"]["groups"]) == (2, 1)
    copied = duplicates["groups"][0][0]["id"]
    similar = http.get(f"models/{copied}/similar").json()
    assert [(hit["id"], hit["relation"], hit["path"]) for hit in similar["hits"]] == [
        (copied, "same weights", str(tmp_path / "loras" / "lora1.safetensors"))
    ]
    shutil.copy(SHIPPED[2], tmp_path / "loras" / "late.safetensors")
    CliRunner().invoke(app, ["index", str(tmp_path / "loras"), "--zoo", str(tmp_path / "zoo")])
    assert http.get("duplicates").json()["compared"] == 3  # the zoo is loaded again after a change


def test_labels_and_facts_equal_those_of_the_command_line(http: TestClient) -> None:
    files = [
        ("files", ("my lora.safetensors", SHIPPED[0].read_bytes())),
        ("files", ("broken.safetensors", b"nonsense")),
    ]
    results = http.post("label", files=files, data={"labels": ["a dog", "a car"], "count": "2"}).json()["results"]
    expected = list(Loradex(SHIPPED_ZOO).label([str(SHIPPED[0])], ["a dog", "a car"], 2))[0].document()
    assert results[0] == {**expected, "file": "my lora.safetensors"}
    assert results[1]["reason"].startswith("broken.safetensors: ")
    facts = json.loads(CliRunner().invoke(app, ["inspect", str(SHIPPED[0]), "--hash", "--json"]).stdout)["files"][0]
    inspected = http.post("inspect", files=files, data={"hash": "true"}).json()
    assert inspected["files"][0] == {**facts, "file": "my lora.safetensors"}
    assert [refusal["file"] for refusal in inspected["refused"]] == ["broken.safetensors"]
    assert not re.search(r"/tmp|loradex-", json.dumps([results, inspected]))  # noqa: S108


def test_indexing(http: TestClient, backend: Backend, tmp_path: Path) -> None:
    assert http.get("index").json()["state"] == "none"
    refused = http.post("index", json={"folders": [str(tmp_path)]})
    assert (refused.status_code, refused.json()["error"]["kind"]) == (422, "QueryError")
    backend.roots = [tmp_path]
    shutil.copytree(SHIPPED[0].parent, tmp_path / "one")
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    started = http.post("index", json={"folders": [str(tmp_path)]})
    assert (started.status_code, started.json()["folders"]) == (202, [str(tmp_path)])
    backend.wait(60)
    run = http.get("index").json()
    assert (run["state"], run["answer"]["added"]) == ("done", 1)
    assert [Path(refusal["file"]).name for refusal in run["answer"]["refused"]] == ["broken.safetensors"]
    assert http.get("zoo").json()["models"] == 1  # the user's zoo is served once it is filled
    backend.indexing_run = IndexingRun(State.RUNNING)
    again = http.post("index", json={"folders": [str(tmp_path)]})
    assert (again.status_code, again.json()["error"]["kind"]) == (409, "RunUnderWay")
    assert http.delete("index").status_code == 202


def test_indexing_advises_on_files_without_an_expert(http: TestClient, backend: Backend, tmp_path: Path) -> None:
    backend.roots = [tmp_path]
    write_files(tmp_path)
    assert http.post("index", json={"folders": [str(tmp_path)]}).status_code == 202
    backend.wait(60)
    answer = http.get("index").json()["answer"]
    assert (answer["by_weights"], answer["by_metadata"], answer["advice"]) == (0, 3, ADVICE)
    assert http.post("index", json={"folders": [str(tmp_path)]}).status_code == 202
    backend.wait(60)
    answer = http.get("index").json()["answer"]
    assert (answer["unchanged"], answer["advice"]) == (3, None)  # it advises on what this run read


@pytest.mark.parametrize(
    ("method", "route", "status"),
    [
        ("GET", "search", 422),
        ("GET", "search?text=a&limit=0", 422),
        ("GET", "search?text=a&nonsense=1", 422),
        ("GET", f"search?text={'x' * 301}", 422),
        ("GET", "search?" + "&".join(["text=a"] * 33), 422),
        ("GET", "search?text=a&rank=high", 422),
        ("GET", "search?text=a&found_by=luck", 422),
        ("GET", "search?text=a&model=none", 404),
        ("GET", "search?text=%00%1b%ff&folder=%00", 200),
        ("GET", "models?limit=501", 422),
        ("GET", f"models/{'x' * 301}", 422),
        ("GET", "models/%ed%a0%80", 404),
        ("GET", "models/..%2f..%2fetc", 404),
        ("GET", "nothing", 404),
        ("GET", "docs", 404),
        ("PUT", "search", 405),
        ("POST", "search", 422),
        ("POST", "label", 422),
        ("POST", "index", 422),
    ],
)
def test_all_errors_have_one_shape(http: TestClient, method: str, route: str, status: int) -> None:
    answer = http.request(method, route)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert set(answer.json()) == {"error"}
        assert set(answer.json()["error"]) == {"kind", "message"}
        assert answer.json()["error"]["message"].isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"folders": "x"}',
        b'{"folders": ["\\ud800"]}',
        b'{"folders": ["\\u0000"]}',
        b'{"folders": [1e999]}',
    ],
)
@pytest.mark.parametrize("roots", [None, [Path("/somewhere")]])
def test_invalid_bodies(http: TestClient, backend: Backend, body: bytes, roots: list[Path] | None) -> None:
    backend.roots = roots
    answer = http.post("index", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert set(answer.json()["error"]) == {"kind", "message"}


def test_internal_errors_reveal_nothing(http: TestClient, backend: Backend, tmp_path: Path) -> None:
    backend.loradex = LoradexWithoutEncoder(zoo_of_metadata(tmp_path, ["a"]))
    backend.loradex.zoo.close()
    closed = http.get("models")
    assert (closed.status_code, closed.json()["error"]["kind"], closed.headers["retry-after"]) == (
        503,
        "ZooClosed",
        "2",
    )
    backend.loradex.__dict__["zoo"] = None
    assert http.get("models").json() == {
        "error": {
            "kind": "InternalError",
            "message": "server: expected to answer, found an error of Loradex itself; see the server's log",
        }
    }
    backend.loradex = Loradex(tmp_path / "none")
    assert (http.get("zoo").status_code, http.get("zoo").json()["error"]["kind"]) == (500, "ZooMissing")


def test_the_limiter_refuses_further_requests() -> None:
    limiter, outcomes = RequestLimiter(running=2, waiting=3, timeout=0.2), list[str]()
    for _ in range(2):
        limiter.acquire()

    def wait() -> None:
        with suppress(Busy):
            limiter.acquire()
            outcomes.append("ran")
            return
        outcomes.append("refused")

    threads = [Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(threads) > len(outcomes) and limiter._admitted.acquire(blocking=False):  # until all three wait
        limiter._admitted.release()
    with pytest.raises(Busy, match="too many"):
        limiter.acquire()
    limiter.release()  # for one that waits
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["ran", "refused", "refused"]
