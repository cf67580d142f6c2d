"""Zoos of layout 1 are brought to today's, whenever that was interrupted; the rows are those that layout 1 wrote."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loradex.index import Evidence, Filter, KnownFile, ZooOutdated, ZooUnreachable, open_zoo
from loradex.index.milvus.collections import ENGINES
from loradex.index.milvus.connection import Connection
from loradex.index.milvus.tables import Tables
from loradex.index.milvus.zoo import MilvusZoo
from loradex.index.milvus.zoo_row import ZooRow
from tests.index.milvus.layout_1 import make_zoo, stored_rows
from tests.index.zoo_oracle import DIM, SPACE, models, nearest, random_vectors, same

QUERY = random_vectors(1, seed=3)[0]


def check(zoo: MilvusZoo) -> None:
    """Compare a zoo with the content of ``layout_1.json``."""
    vectors = {
        row["id"]: np.array(row["vector"], np.float32)
        for row in stored_rows()["models"]
        if row["placed"] and row["id"] != "d"
    }
    assert sorted(vectors) == ["a", "b", "e"] and (zoo.space, zoo.dim, len(zoo)) == (SPACE, DIM, 5)
    for id, vector in vectors.items():
        ((kind, place),) = zoo.positions_by_id([id])[id].items()
        assert (kind, place.scale, place.bias) == (Evidence.PICTURE, 1.0, 0.0)
        np.testing.assert_array_equal(place.vector, vector)
    assert same(zoo.search(QUERY, 9), nearest(vectors, QUERY, 9))
    found = zoo.models_by_id(["a", "b", "c", "e"])
    assert [(each.name, each.found_by, each.added) for each in found.values()] == [
        ("Better_Hands", Evidence.PICTURE, 5),
        ("Rain", Evidence.PICTURE, 5),
        ("名\ud800", Evidence.METADATA, 5),
        ("e", Evidence.PICTURE, 5),
    ]
    assert found["a"].facts == {"tags": ["Hands", "anatomy"], "format": "kohya", "ranks": [4, 8]}
    assert zoo.fingerprints() == {"a": b"\0print", "d": b"d"}
    assert zoo.known_files() == {
        "/x/1": KnownFile("/x/1", 1, 2, "a", None, "r1"),
        "/y/Anime/2": KnownFile("/y/Anime/2", 3, 4, "a"),
        "/bad": KnownFile("/bad", 5, 6, None, "no"),
    }
    assert [[each.id for each in zoo.find([word])] for word in ("anatomy", "street", "streets", "anime")] == [
        ["a"],
        [],
        ["b"],
        ["a"],  # the folder of a copy
    ]
    assert [hit.model.id for hit in zoo.search(QUERY, 9, Filter(folder="/y", lowest_rank=8, tags=("HANDS",)))] == ["a"]
    (problem,) = zoo.verify()
    assert "row of model 'd'" in problem


def test_zoo_of_layout_1(folder: Path) -> None:
    """All of it is there after it was opened for writing; a damaged model is reported still, and removed on request."""
    make_zoo(folder)
    command = re.escape(f"loradex zoo compact --zoo {shlex.quote(str(folder))}")
    with pytest.raises(ZooOutdated, match=f"^[^\n]*expected layout 2, found 1; migrate it with `{command}`$"):
        open_zoo(folder, read_only=True)
    assert MilvusZoo.exists(folder)
    with open_zoo(folder) as zoo:
        assert isinstance(zoo, MilvusZoo)
        check(zoo)
    with MilvusZoo.open(folder, read_only=True) as zoo:
        check(zoo)
    with MilvusZoo.open(folder) as zoo:
        assert zoo.rebuild() == ["d"] and zoo.verify() == []
        zoo.add(models("z"), [{Evidence.WORDS: QUERY}])
        assert zoo.search(QUERY, 1)[0].model.id == "z"


@pytest.mark.parametrize("engine", ["exact", "auto"])
def test_the_engine_is_kept(folder: Path, engine: str) -> None:
    """The index of the positions is that of the row, as ``zoo rebuild --engine`` chose it."""
    make_zoo(folder)
    connection = Connection(folder)
    files = Tables(connection).files
    files.call("load_collection")
    replace(ZooRow.read(files), engine=engine).write(files, finished=True)
    connection.close()
    with MilvusZoo.open(folder) as zoo:
        index = zoo._connection.call("describe_index", "loradex_positions", index_name="vector")
        assert (zoo.engine, index["index_type"]) == (engine, ENGINES[engine])
        check(zoo)


@pytest.mark.parametrize("limit", range(9))
def test_interrupted_migration(folder: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Whichever request is the last: reading is refused in one line, and opening for writing goes on."""
    make_zoo(folder)
    call, made = Connection.call, 0
    changes = ("create_collection", "create_index", "upsert", "drop_collection", "rename_collection")

    def fails_after(connection: Connection, method: str, *arguments: Any, **options: Any) -> Any:
        nonlocal made
        made += method in changes
        if made > limit:
            raise ZooUnreachable("gone")
        return call(connection, method, *arguments, **options)

    monkeypatch.setattr(Connection, "call", fails_after)
    with pytest.raises(ZooUnreachable):
        MilvusZoo.open(folder)
    monkeypatch.undo()
    with pytest.raises(ZooOutdated, match=r"^[^\n]*; migrate it with `loradex zoo compact --zoo [^\n]*`$"):
        MilvusZoo.open(folder, read_only=True)
    with MilvusZoo.open(folder) as zoo:
        check(zoo)


def test_change_by_an_earlier_version_between(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it changed or removed after an interrupted migration is what the next migration finds."""
    make_zoo(folder)
    call = Connection.call

    def no_drop(connection: Connection, method: str, *arguments: Any, **options: Any) -> Any:
        if method == "upsert" and any(row["id"] == "zoo" for row in options["data"]):
            raise ZooUnreachable("gone")
        return call(connection, method, *arguments, **options)

    monkeypatch.setattr(Connection, "call", no_drop)
    with pytest.raises(ZooUnreachable):
        MilvusZoo.open(folder)
    monkeypatch.undo()
    rows = {row["id"]: row for row in stored_rows()["models"]}
    connection = Connection(folder)
    connection.call("delete", "loradex_models", filter='id == "b"')
    connection.call("upsert", "loradex_models", data=[rows["a"] | {"vector": rows["e"]["vector"]}])
    connection.close()
    with MilvusZoo.open(folder) as zoo:
        vector = np.array(rows["e"]["vector"], np.float32)
        assert same(zoo.search(QUERY, 9), nearest({"a": vector, "e": vector}, QUERY, 9))
        assert len(zoo.verify()) == 1 and not zoo.has("b")
