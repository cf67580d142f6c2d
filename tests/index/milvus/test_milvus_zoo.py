"""What is specific to Milvus; the contract of all stores is tested by the fixture ``zoo`` of ../conftest.py."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loradex.index import (
    BadModel,
    BadQuery,
    Filter,
    KnownFile,
    Zoo,
    ZooDamaged,
    ZooExists,
    ZooLocked,
    ZooMissing,
    ZooTooNew,
    ZooUnreachable,
    open_zoo,
)
from loradex.index.entry import Entry
from loradex.index.milvus.address import folder_of_address
from loradex.index.milvus.rows import folder_codes, pack, tokens, unpack, weighted_words
from loradex.index.milvus.zoo import MilvusZoo
from tests.index.zoo_oracle import DIM, PYTHONPATH, SPACE, model, models, nearest, random_vectors, same

ROOT = Path(__file__).parents[3]


@pytest.fixture
def milvus(folder: Path) -> Iterator[MilvusZoo]:
    with MilvusZoo.create(folder, SPACE, DIM) as zoo:
        yield zoo


def start_child(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process that runs some code with a zoo's folder."""
    imports = (
        "import sys, os, time, pathlib\nfrom tests.index.zoo_oracle import *\nfrom loradex.index import open_zoo\n"
    )
    code = f"{imports}folder = pathlib.Path(sys.argv[1])\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
    )  # noqa: S603


def test_open_create_and_missing(folder: Path) -> None:
    """An address holds one zoo; opening never creates one."""
    folder_of_address(f"milvus://{folder.parent}/other", folder, make=True)
    with pytest.raises(ZooMissing, match="found none"):
        MilvusZoo.open(folder.parent / "other")
    with MilvusZoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models("a"), random_vectors(1))
        with pytest.raises(ZooLocked):
            MilvusZoo.open(folder)
        with MilvusZoo.open(folder, read_only=True) as reader:
            assert len(reader) == 1
    with pytest.raises(ZooExists):
        MilvusZoo.create(folder, SPACE, DIM)
    with open_zoo(folder, space=SPACE) as zoo:
        assert isinstance(zoo, MilvusZoo) and [model.id for model in zoo.models()] == ["a"]


def test_killed_while_adding(folder: Path) -> None:
    """All acknowledged models are in the zoo, and each row is complete."""
    MilvusZoo.create(folder, SPACE, DIM).close()
    code = """
with open_zoo(folder) as zoo:
    for number in range(10_000):
        zoo.add(models(f"b{number:05}-{i}" for i in range(8)), random_vectors(8, seed=number))
        print(number, flush=True)
"""
    with start_child(code, folder) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 20:
                process.kill()
                break
    with MilvusZoo.open(folder) as zoo:
        assert zoo.verify() == []
        for number in range(21):
            for i, vector in enumerate(random_vectors(8, seed=number)):
                assert zoo.search(vector, 1)[0].model.id == f"b{number:05}-{i}"
        zoo.add(models("z"), random_vectors(1))
        assert zoo.has("z")


def test_files_open_in_another_process(folder: Path) -> None:
    """The error is one line; after that process ended, the zoo can be opened."""
    MilvusZoo.create(folder, SPACE, DIM).close()
    with start_child(
        "zoo = open_zoo(folder, read_only=True)\nprint('open', flush=True)\ntime.sleep(60)", folder
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(
            ZooLocked, match=r"^[^\n]*expected milvus-lite to open [^\n]*end the other process that has it$"
        ):
            MilvusZoo.open(folder, read_only=True)
        process.kill()
    MilvusZoo.open(folder).close()


def test_search_after_add(milvus: MilvusZoo) -> None:
    """A model is a hit as soon as ``add`` returned, for another connection and in other threads."""
    vectors = random_vectors(200)
    with MilvusZoo.open(milvus.folder, read_only=True) as reader, ThreadPoolExecutor(4) as pool:

        def search(number: int) -> str:
            return reader.search(vectors[number], 1)[0].model.id

        for number in range(0, 200, 8):
            ids = [f"m{i:03}" for i in range(number, number + 8)]
            milvus.add(models(ids), vectors[number : number + 8])
            assert list(pool.map(search, range(number, number + 8))) == ids


def test_server(tmp_path: Path) -> None:
    """A zoo on a server, here that of milvus-lite; after the server stopped, the error is ``ZooUnreachable``."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, store, port = start_server_in_thread(data_dir=str(tmp_path / "server"), host="127.0.0.1", port=0)
    vectors = dict(zip("abc", random_vectors(3), strict=True))
    try:
        folder = folder_of_address(f"milvus://127.0.0.1:{port}/loras", tmp_path)
        with MilvusZoo.create(folder, SPACE, DIM) as zoo:
            zoo.add(models(vectors), list(vectors.values()))
        other_folder = folder_of_address(f"milvus://127.0.0.1:{port}/loras", tmp_path / "another machine")
        with open_zoo(other_folder, read_only=True) as reader, open_zoo(folder) as writer:
            assert same(reader.search(vectors["b"], 3), nearest(vectors, vectors["b"], 3))
            writer.remove(["a"])
            assert [model.id for model in reader.models()] == ["b", "c"] and not (other_folder / "milvus.db").exists()
            server.stop(grace=0)
            for call in (
                lambda: len(reader),
                lambda: reader.search(vectors["b"], 1),
                lambda: writer.add(models("z"), random_vectors(1)),
            ):
                with pytest.raises(
                    ZooUnreachable, match=rf"^milvus://127.0.0.1:{port}/loras: expected Milvus to answer"
                ):
                    call()
    finally:
        server.stop(grace=0)
        store.close()


def test_no_server(tmp_path: Path) -> None:
    """The error is one line that names the address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # no server listens
        folder = folder_of_address(f"milvus://127.0.0.1:{listener.getsockname()[1]}/loras", tmp_path)
        with pytest.raises(
            ZooUnreachable, match=r"^milvus://127.0.0.1:\d+/loras: expected Milvus to answer, found: [^\n]*$"
        ):
            open_zoo(folder, read_only=True)


@pytest.mark.parametrize("package", ["pymilvus", "milvus_lite"])
def test_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """The error is one line that says what to install; a zoo in a folder does not need it."""
    monkeypatch.setitem(sys.modules, package, None)
    folder_of_address(f"milvus://{folder.parent}/m", folder, make=True)
    with pytest.raises(ZooUnreachable, match=rf"^[^\n]*expected {package} [^\n]*; pip install 'loradex\[milvus\]'$"):
        open_zoo(folder.parent / "m")
    Zoo.create(folder, SPACE, DIM).close()


def test_pymilvus_is_imported_only_for_milvus() -> None:
    """Importing the index does not import pymilvus."""
    packages = {"pymilvus", "grpc", "milvus_lite", "pandas"}
    code = f"import sys, loradex.index, loradex.index.opening, loradex.app.paths; sys.exit(bool({packages} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0  # noqa: S603


@pytest.mark.parametrize("id", ["a/b", 'a"b', "x" * 65, "é", "a\n", "a' or 1==1"])
def test_ids(milvus: MilvusZoo, id: str) -> None:
    """Ids that need escapes in an expression of Milvus are refused, and never exist."""
    with pytest.raises(BadModel, match="expected an id of up to 64 letters"):
        milvus.add([model(id)], random_vectors(1))
    assert (
        not milvus.has(id)
        and milvus.remove([id]) == 0
        and milvus.vectors_by_id([id]) == {}
        and milvus.files_by_model([id]) == {} == milvus.fingerprints([id])
    )


def test_bounds(milvus: MilvusZoo) -> None:
    """What does not fit a row is refused; long notes are stored, and found by their first words."""
    with pytest.raises(BadModel, match="at most 4096 tags"):
        milvus.add([replace(model("a"), facts={"tags": [f"t{i}" for i in range(5000)]})], random_vectors(1))
    with pytest.raises(BadModel, match="at most 4,160,000 bytes"):
        milvus.add([replace(model("a"), facts={"notes": os.urandom(3_000_000).hex()})], random_vectors(1))
    notes = " ".join(f"word{i}" for i in range(30_000))
    milvus.add([replace(model("a"), facts={"notes": notes})], random_vectors(1))
    assert milvus.get("a").facts["notes"] == notes
    assert [model.id for model in milvus.find(["word77"])] == ["a"] and milvus.find(["word29999"]) == []
    milvus.note_files([KnownFile("/" + "/".join(f"{i}" for i in range(4000)), 1, 1, "a")])
    with pytest.raises(BadModel, match="at most 4096 folders"):
        milvus.note_files([KnownFile("/x/" + "/".join(f"{i}" for i in range(4000)), 1, 1, "a")])


def test_many_ties(milvus: MilvusZoo) -> None:
    """Ties are in order of id, whatever the order of Milvus."""
    one = random_vectors(1)[0]
    ids = [f"m{i * 5 % 301:03}" for i in range(301)]
    milvus.add(models(ids), np.tile(one, (301, 1)))
    assert [hit.model.id for hit in milvus.search(one, 5)] == sorted(ids)[:5]
    assert [model.id for model in milvus.find(["lora"], 5)] == sorted(ids)[:5]


def test_engines(milvus: MilvusZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that the server does not have is refused, and the vectors get a FLAT index."""
    vectors = dict(zip("abcdef", random_vectors(6), strict=True))
    milvus.add(models(vectors), list(vectors.values()))
    before = milvus.state()
    with pytest.raises(BadQuery, match="expected auto, exact in Milvus"):
        milvus.save_engine("codes")
    assert milvus.save_engine("auto") and milvus.state() != before
    with MilvusZoo.open(milvus.folder, read_only=True) as reader:
        assert reader.engine == "auto"
    assert same(milvus.search(vectors["c"], 6), nearest(vectors, vectors["c"], 6))
    call, refusals = milvus._connection.call, iter([BadQuery("this server has none")])  # milvus-lite takes any name

    index_types: list[str] = []

    def refusing(method: str, *arguments: Any, **options: Any) -> Any:
        if method == "create_index":
            index_types.extend(str(each.index_type) for each in arguments[1])
            if refusal := next(refusals, None):
                raise refusal
        return call(method, *arguments, **options)

    monkeypatch.setattr(milvus._connection, "call", refusing)
    with pytest.raises(BadQuery, match="has none"):
        milvus.save_engine("auto")
    assert index_types == ["AUTOINDEX", "FLAT"] and "vector" in call("list_indexes", "loradex_positions")
    call("release_collection", "loradex_positions")
    call("drop_index", "loradex_positions", "vector")  # as a process that is killed before it creates the next
    milvus.close()
    with MilvusZoo.open(milvus.folder) as reopened:
        assert "vector" in reopened._connection.call("list_indexes", "loradex_positions")
        assert same(reopened.search(vectors["c"], 6), nearest(vectors, vectors["c"], 6))


def test_folders_follow_files(milvus: MilvusZoo) -> None:
    """A filter by folder finds a model by its path and by all its files, and not by former ones."""
    milvus.add(models("ab"), random_vectors(2))
    milvus.note_files([KnownFile("/x/1", 1, 1, "a"), KnownFile("/y/2", 1, 1, "a"), KnownFile("/x/3", 1, 1, "b")])

    def below(folder: str) -> list[str]:
        return [model.id for model in milvus.models(Filter(folder=folder))]

    assert (below("/x"), below("/y"), below("/loras"), below("/")) == (["a", "b"], ["a"], ["a", "b"], ["a", "b"])
    milvus.note_files([KnownFile("/x/1", 1, 1, "b")], forget=["/y/2"])
    assert (below("/x"), below("/y")) == (["b"], [])
    milvus.add([replace(model("a"), path="/z/1")], random_vectors(1))
    assert (below("/z"), below("/loras"), milvus.verify()) == (["a"], ["b"], [])
    milvus.remove(["b"])
    assert (below("/x"), list(milvus.known_files())) == ([], [])


def test_damage(milvus: MilvusZoo) -> None:
    """Fields that differ from the record are reported and repaired; a model with a damaged record is removed."""
    vectors = dict(zip("abcdef", random_vectors(6), strict=True))
    milvus.add(models(vectors), list(vectors.values()))
    rows, positions = milvus._models.rows(list("abcdef")), milvus._tables.positions
    milvus._models.upsert(
        [
            rows["a"] | {"family": "another"},
            rows["b"] | {"record": ["bm90aGluZw=="]},
            rows["f"] | {"places": ["bm90aGluZw=="]},
        ]
    )
    (row,) = positions.by_model(["c"])
    positions.delete(["d:0"])
    positions.upsert(
        [row | {"vector": [0.5] * (DIM + 1)}, row | {"id": "z:0", "model": "z"}, row | {"id": "e:1", "model": "e"}]
    )
    problems = milvus.verify()
    assert [each.partition("model ")[2][:3] for each in problems] == ["'a'", "'c'", "'d'", "'e'", "'z'", "'b'", "'f'"]
    for call in (lambda: milvus.get("b"), lambda: milvus.vector("f")):
        with pytest.raises(ZooDamaged, match="row of model '[bf]'"):
            call()
    assert milvus.rebuild() == ["b", "f"]
    assert milvus.verify() == []
    left = {id: vectors[id] for id in "acde"}
    assert same(milvus.search(vectors["d"], 9, Filter(families=("sd-1.5",))), nearest(left, vectors["d"], 9))


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ([], ZooDamaged),
        (["x"], ZooDamaged),
        (pack([1]), ZooDamaged),
        (pack([9, "s", 3, "exact", 1, ""]), ZooTooNew),
    ],
)
def test_zoo_row(milvus: MilvusZoo, record: list[str], error: type[Exception]) -> None:
    """A damaged row of the zoo, or one of a later layout, is an error, and nothing is written."""
    milvus._files.upsert([{"id": "zoo", "shard": 0, "model": "", "record": record, "nothing": [0.0, 0.0]}])
    for call in (milvus.state, lambda: milvus.add(models("a"), random_vectors(1))):
        with pytest.raises(error, match=r"^[^\n]*expected [^\n]* found [^\n]*$"):
            call()


@pytest.mark.parametrize("value", [None, "", "x" * 300_000, {"a": ["\ud800", 1.5, None]}, list(range(1000))])
def test_pack(value: Any) -> None:
    """A value is packed into short ASCII texts and unpacked unchanged."""
    chunks = pack(value)
    assert unpack(chunks) == value and all(chunk.isascii() and len(chunk) < 65_536 for chunk in chunks)


@pytest.mark.parametrize("chunks", [["!"], ["eJw="], ["bm90"], [""], ["é"], [5], None])
def test_unpack_damaged(chunks: Any) -> None:
    """Texts that are not the result of ``pack`` raise one of two errors."""
    with pytest.raises((ValueError, TypeError)):
        unpack(chunks)


def test_words_and_folders() -> None:
    """Tokens and codes as they are written into rows."""
    assert (
        tokens("Café STRASSE Straße v2 名") == ["cafe", "strasse", "strasse", "v2", tokens("名")[0]]
        and tokens("名")[0].isalnum()
    )
    named = replace(model("a", "Dog"), facts={"tags": ["cat"], "notes": "dog bird"})
    assert (
        weighted_words(Entry.from_model(named)).split().count("dog") == 2 * 10 + 2
    )  # each text is followed by its words
    assert len(folder_codes(["/a/b", "/a/c", None, "C:\\x\\y"])) == 4
