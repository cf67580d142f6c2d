"""The shipped zoo in Milvus: the same hits as exact FAISS for every query."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from loradex.app.commands.main import app
from loradex.app.paths import SHIPPED_ZOO, resolve_zoo, zoo_to_read, zoo_to_write
from loradex.index import AnyZoo, Evidence, Filter, Hit, Zoo, open_zoo
from loradex.index.copying import copy_zoo

pytestmark = pytest.mark.xdist_group("milvus")  # one copy for all
NO_PATHS = {"path": None, "place": None}  # below another folder
WHERE = [
    Filter(),
    Filter(families=("mini-a",)),
    Filter(families=("mini-b", "sdxl")),
    Filter(formats=("diffusers",)),
    Filter(lowest_rank=4, highest_rank=4),
    Filter(lowest_rank=8),
    Filter(found_by=(Evidence.PICTURE,)),
    Filter(added_before=1),
    Filter(families=("mini-b",), lowest_rank=4, formats=("diffusers",)),
    Filter(families=("none",)),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped zoo in milvus-lite."""
    folder = resolve_zoo(f"milvus://{tmp_path_factory.mktemp('milvus')}/zoo", make=True)
    with open_zoo(SHIPPED_ZOO, read_only=True) as shipped:
        copy_zoo(shipped, folder)
    return folder


@pytest.fixture
def zoos(place: Path) -> Iterator[tuple[AnyZoo, AnyZoo]]:
    """The shipped zoo, and its copy in Milvus."""
    with Zoo.open(SHIPPED_ZOO, read_only=True) as shipped, open_zoo(place, read_only=True) as milvus:
        yield shipped, milvus


def ids_and_scores(hits: list[Hit]) -> list[tuple[str, float]]:
    return [(hit.model.id, round(hit.score, 9)) for hit in hits]


@pytest.mark.parametrize("where", WHERE)
def test_searches_equal_exact_faiss(zoos: tuple[AnyZoo, AnyZoo], where: Filter) -> None:
    """Hits, scores, models and vectors, for vectors of models and random ones."""
    shipped, milvus = zoos
    ids = [model.id for model in shipped.models()]
    known = np.stack(list(shipped.vectors_by_id(ids[::30]).values()))
    queries = np.concatenate([known, np.random.default_rng(0).normal(size=(10, shipped.dim))])
    for k in (1, 10, 300):
        for mine, theirs in zip(
            milvus.search_many(queries, k, where), shipped.search_many(queries, k, where), strict=True
        ):
            assert ids_and_scores(mine) == ids_and_scores(theirs) and [hit.model for hit in mine] == [
                hit.model for hit in theirs
            ]
            assert all(np.array_equal(hit.vector, other.vector) for hit, other in zip(mine, theirs, strict=True))
    assert list(milvus.models(where)) == list(shipped.models(where))
    assert {model.id for model in milvus.find(["mini"], 300, where)} == {
        model.id for model in shipped.find(["mini"], 300, where)
    }


def test_everything_else_is_the_same(zoos: tuple[AnyZoo, AnyZoo]) -> None:
    """Counts, files, fingerprints."""
    shipped, milvus = zoos
    for column in ("family", "format", "found_by", "tag"):
        assert milvus.counts(column) == shipped.counts(column)
    assert (
        milvus.known_files() == shipped.known_files()
        and milvus.fingerprints() == shipped.fingerprints()
        and milvus.verify() == []
    )


def document(*arguments: object) -> dict[str, object]:
    """The JSON document of a command."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    parsed: dict[str, object] = json.loads(done.stdout)
    return parsed


def test_commands(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By address, by folder and by $LORADEX_ZOO; with the answers of the shipped zoo."""
    expected = document("search", "a slice of pizza", "--minus", "red", "--family", "mini-a", "--zoo", "miniature")[
        "hits"
    ]
    assert isinstance(expected, list) and len(expected) == 10
    lists = [
        document("search", "a slice of pizza", "--minus", "red", "--family", "mini-a", "--zoo", zoo)["hits"]
        for zoo in (place, f"milvus://{place}")
    ]
    monkeypatch.setenv("LORADEX_ZOO", f"milvus://{place}")
    lists.append(document("search", "a slice of pizza", "--minus", "red", "--family", "mini-a")["hits"])
    for hits in lists:
        assert isinstance(hits, list) and [hit | NO_PATHS for hit in hits] == [hit | NO_PATHS for hit in expected]
    loras = tmp_path / "loras"
    loras.mkdir()
    for number, file in enumerate(sorted(SHIPPED_ZOO.parent.glob("models/mini-b/**/*.safetensors"))[:3]):
        (loras / f"m{number}.safetensors").write_bytes(file.read_bytes())
    new = f"milvus://{tmp_path}/new"
    assert (
        document("index", loras, "--zoo", new)["added"] == 3
        and document("index", loras, "--zoo", new)["unchanged"] == 3
    )
    (loras / "m0.safetensors").unlink()
    assert document("index", loras, "--zoo", new, "--prune")["removed"] == 1
    assert document("zoo", "verify", "--zoo", new) == {"zoo": str(tmp_path / "new"), "models": 2, "problems": []}
    assert document("duplicates", "--zoo", new)["compared"] == 2
    out, back = tmp_path / "zoo.parquet", f"milvus://{tmp_path}/back"
    assert (
        document("zoo", "export", out, "--zoo", new)["models"] == 2
        and document("zoo", "import", out, "--zoo", back)["models"] == 2
    )
    mine, theirs = (document("zoo", "list", "--zoo", zoo)["models"] for zoo in (new, back))
    assert mine == theirs
    assert document("zoo", "compact", "--zoo", new)["zoo"] == str(tmp_path / "new")


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo on a server has a folder in the user's data, for reading and for writing."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = tmp_path / "loradex" / "milvus" / "host_19530-team-loras"
    assert zoo_to_read("milvus://host/loras?db=team") == folder == zoo_to_write("milvus://host/loras?db=team")
    assert zoo_to_read("miniature") == SHIPPED_ZOO and zoo_to_read(None) == SHIPPED_ZOO
    assert zoo_to_read(f"milvus://{tmp_path}/none") == tmp_path / "none" and not (tmp_path / "none").exists()
