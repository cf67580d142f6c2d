"""What is Milvus's own; all else is tested with every engine at once (see ../conftest.py)."""

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
from zoo_oracle import DIM, SPACE, model, models, nearest, same, vectors

from loradex.index import (
    BadModel,
    BadQuery,
    Filter,
    FoundBy,
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
from loradex.index.milvus import MilvusZoo
from loradex.index.milvus.address import folder_of
from loradex.index.milvus.rows import folders_of, packed, tokens, unpacked, words_of
from loradex.index.sqlite.rows import to_entry

ROOT = Path(__file__).parents[3]


@pytest.fixture
def milvus(folder: Path) -> Iterator[MilvusZoo]:
    with MilvusZoo.create(folder, SPACE, DIM) as made:
        yield made


def child(code: str, folder: Path) -> subprocess.Popen[str]:
    """A process of its own that works on a zoo."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "index")])
    code = f"import sys, os, time, pathlib\nfrom zoo_oracle import *\nfrom index import open_zoo\nfolder = pathlib.Path(sys.argv[1])\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )  # noqa: S603


def test_open_create_and_missing(folder: Path) -> None:
    """One zoo for a place; a place without one is told so, and is left as it is."""
    folder_of(f"milvus://{folder.parent}/other", folder, make=True)
    with pytest.raises(ZooMissing, match="found none"):
        MilvusZoo.open(folder.parent / "other")
    with MilvusZoo.create(folder, SPACE, DIM) as made:
        made.add(models("a"), vectors(1))
        with pytest.raises(ZooLocked):
            MilvusZoo.open(folder)
        with MilvusZoo.open(folder, read_only=True) as reader:
            assert len(reader) == 1
    with pytest.raises(ZooExists):
        MilvusZoo.create(folder, SPACE, DIM)
    with open_zoo(folder, space=SPACE) as again:
        assert isinstance(again, MilvusZoo) and [found.id for found in again.models()] == ["a"]


def test_what_is_acknowledged_outlives_a_kill(folder: Path) -> None:
    """All of it is found, and each row is whole."""
    MilvusZoo.create(folder, SPACE, DIM).close()
    code = """
with open_zoo(folder) as zoo:
    for number in range(10_000):
        zoo.add(models(f"b{number:05}-{i}" for i in range(8)), vectors(8, seed=number))
        print(number, flush=True)
"""
    with child(code, folder) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 20:
                process.kill()
                break
    with MilvusZoo.open(folder) as zoo:
        assert zoo.verify() == []
        for number in range(21):
            for i, vector in enumerate(vectors(8, seed=number)):
                assert zoo.search(vector, 1)[0].model.id == f"b{number:05}-{i}"
        zoo.add(models("z"), vectors(1))
        assert zoo.has("z")


def test_another_process_has_the_files(folder: Path) -> None:
    """It is told in one line; when that process has ended, they are free."""
    MilvusZoo.create(folder, SPACE, DIM).close()
    with child("zoo = open_zoo(folder, read_only=True)\nprint('open', flush=True)\ntime.sleep(60)", folder) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(
            ZooLocked, match=r"^[^\n]*expected milvus-lite to open [^\n]*end the other process that has it$"
        ):
            MilvusZoo.open(folder, read_only=True)
        process.kill()
    MilvusZoo.open(folder).close()


def test_a_model_acknowledged_is_found_by_the_next_search(milvus: MilvusZoo) -> None:
    """By another connection, in another thread, while others search."""
    given = vectors(200)
    with MilvusZoo.open(milvus.folder, read_only=True) as reader, ThreadPoolExecutor(4) as pool:

        def search(number: int) -> str:
            return reader.search(given[number], 1)[0].model.id

        for number in range(0, 200, 8):
            ids = [f"m{i:03}" for i in range(number, number + 8)]
            milvus.add(models(ids), given[number : number + 8])
            assert list(pool.map(search, range(number, number + 8))) == ids


def test_a_server_by_its_address(tmp_path: Path) -> None:
    """Over the network, here milvus-lite's own server; when it goes away, that is told as such, and not as a bad question."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, store, port = start_server_in_thread(data_dir=str(tmp_path / "server"), host="127.0.0.1", port=0)
    given = dict(zip("abc", vectors(3), strict=True))
    try:
        folder = folder_of(f"milvus://127.0.0.1:{port}/loras", tmp_path)
        with MilvusZoo.create(folder, SPACE, DIM) as made:
            made.add(models(given), list(given.values()))
        elsewhere = folder_of(f"milvus://127.0.0.1:{port}/loras", tmp_path / "another machine")
        with open_zoo(elsewhere, read_only=True) as reader, open_zoo(folder) as writer:
            assert same(reader.search(given["b"], 3), nearest(given, given["b"], 3))
            writer.remove(["a"])
            assert [found.id for found in reader.models()] == ["b", "c"] and not (elsewhere / "milvus.db").exists()
            server.stop(grace=0)
            for use in (
                lambda: len(reader),
                lambda: reader.search(given["b"], 1),
                lambda: writer.add(models("z"), vectors(1)),
            ):
                with pytest.raises(
                    ZooUnreachable, match=rf"^milvus://127.0.0.1:{port}/loras: expected Milvus to answer"
                ):
                    use()
    finally:
        server.stop(grace=0)
        store.close()


def test_no_server(tmp_path: Path) -> None:
    """It is told in one line that names the address."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nothing listens
        folder = folder_of(f"milvus://127.0.0.1:{held.getsockname()[1]}/loras", tmp_path)
        with pytest.raises(
            ZooUnreachable, match=r"^milvus://127.0.0.1:\d+/loras: expected Milvus to answer, found: [^\n]*$"
        ):
            open_zoo(folder, read_only=True)


@pytest.mark.parametrize("package", ["pymilvus", "milvus_lite"])
def test_without_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """One line says which to install; folders need none of it."""
    monkeypatch.setitem(sys.modules, package, None)
    folder_of(f"milvus://{folder.parent}/m", folder, make=True)
    with pytest.raises(ZooUnreachable, match=rf"^[^\n]*expected {package} [^\n]*; pip install 'loradex\[milvus\]'$"):
        open_zoo(folder.parent / "m")
    Zoo.create(folder, SPACE, DIM).close()


def test_the_core_does_not_import_it() -> None:
    """Not with the index, nor with a zoo in a folder."""
    code = "import sys, index, index.places, app.places; sys.exit(bool({'pymilvus', 'grpc', 'milvus_lite', 'pandas'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0  # noqa: S603


@pytest.mark.parametrize("id", ["a/b", 'a"b', "x" * 65, "é", "a\n", "a' or 1==1"])
def test_ids(milvus: MilvusZoo, id: str) -> None:
    """Those that Milvus's language could take for more than a name are refused, and never there."""
    with pytest.raises(BadModel, match="expected an id of up to 64 letters"):
        milvus.add([model(id)], vectors(1))
    assert (
        not milvus.has(id)
        and milvus.remove([id]) == 0
        and milvus.vectors_of([id]) == {}
        and milvus.files_of([id]) == {} == milvus.fingerprints([id])
    )


def test_bounds(milvus: MilvusZoo) -> None:
    """What Milvus has no room for is refused, and long notes are kept and searched by their first words."""
    with pytest.raises(BadModel, match="at most 4096 tags"):
        milvus.add([replace(model("a"), facts={"tags": [f"t{i}" for i in range(5000)]})], vectors(1))
    with pytest.raises(BadModel, match="at most 4,160,000 bytes"):
        milvus.add([replace(model("a"), facts={"notes": os.urandom(3_000_000).hex()})], vectors(1))
    notes = " ".join(f"word{i}" for i in range(30_000))
    milvus.add([replace(model("a"), facts={"notes": notes})], vectors(1))
    assert milvus.get("a").facts["notes"] == notes
    assert [found.id for found in milvus.find(["word77"])] == ["a"] and milvus.find(["word29999"]) == []
    milvus.note_files([KnownFile("/" + "/".join(f"{i}" for i in range(4000)), 1, 1, "a")])
    with pytest.raises(BadModel, match="at most 4096 folders"):
        milvus.note_files([KnownFile("/x/" + "/".join(f"{i}" for i in range(4000)), 1, 1, "a")])


def test_many_that_tie(milvus: MilvusZoo) -> None:
    """Whatever Milvus gives first, ties come in order of id."""
    one = vectors(1)[0]
    ids = [f"m{i * 5 % 301:03}" for i in range(301)]
    milvus.add(models(ids), np.tile(one, (301, 1)))
    assert [hit.model.id for hit in milvus.search(one, 5)] == sorted(ids)[:5]
    assert [found.id for found in milvus.find(["lora"], 5)] == sorted(ids)[:5]


def test_engines(milvus: MilvusZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that the server has is taken; one that it has not is refused, and the zoo answers as before."""
    given = dict(zip("abcdef", vectors(6), strict=True))
    milvus.add(models(given), list(given.values()))
    before = milvus.state()
    with pytest.raises(BadQuery, match="expected auto, exact in Milvus"):
        milvus.save_engine("codes")
    assert milvus.save_engine("auto") and milvus.state() != before
    with MilvusZoo.open(milvus.folder, read_only=True) as reader:
        assert reader.engine == "auto"
    assert same(milvus.search(given["c"], 6), nearest(given, given["c"], 6))
    ask, refusals = milvus._connection.ask, iter([BadQuery("this server has none")])  # milvus-lite takes any name

    made: list[str] = []

    def refusing(what: str, *arguments: Any, **options: Any) -> Any:
        if what == "create_index":
            made.extend(str(each.index_type) for each in arguments[1])
            if refusal := next(refusals, None):
                raise refusal
        return ask(what, *arguments, **options)

    monkeypatch.setattr(milvus._connection, "ask", refusing)
    with pytest.raises(BadQuery, match="has none"):
        milvus.save_engine("auto")
    assert made == ["AUTOINDEX", "FLAT"] and "vector" in ask("list_indexes", "loradex_models")
    ask("release_collection", "loradex_models")
    ask("drop_index", "loradex_models", "vector")  # as a process does that is killed before it makes the next
    milvus.close()
    with MilvusZoo.open(milvus.folder) as again:
        assert "vector" in again._connection.ask("list_indexes", "loradex_models")
        assert same(again.search(given["c"], 6), nearest(given, given["c"], 6))


def test_folders_follow_files(milvus: MilvusZoo) -> None:
    """A model is below the folders of its own path and of all its files, and of none that it left."""
    milvus.add(models("ab"), vectors(2))
    milvus.note_files([KnownFile("/x/1", 1, 1, "a"), KnownFile("/y/2", 1, 1, "a"), KnownFile("/x/3", 1, 1, "b")])

    def below(folder: str) -> list[str]:
        return [found.id for found in milvus.models(Filter(folder=folder))]

    assert (below("/x"), below("/y"), below("/loras"), below("/")) == (["a", "b"], ["a"], ["a", "b"], ["a", "b"])
    milvus.note_files([KnownFile("/x/1", 1, 1, "b")], forget=["/y/2"])
    assert (below("/x"), below("/y")) == (["b"], [])
    milvus.add([replace(model("a"), path="/z/1")], vectors(1))
    assert (below("/z"), below("/loras"), milvus.verify()) == (["a"], ["b"], [])
    milvus.remove(["b"])
    assert (below("/x"), list(milvus.known_files())) == ([], [])


def test_damage(milvus: MilvusZoo) -> None:
    """Columns that are not those of a record are told and mended; a record that is none is told and taken out."""
    milvus.add(models("abc"), vectors(3))
    rows = milvus._rows(["a", "b"])
    milvus._models.upsert([rows["a"] | {"family": "another"}, rows["b"] | {"record": ["bm90aGluZw=="]}])
    problems = milvus.verify()
    assert len(problems) == 2 and all("model 'a'" in each or "model 'b'" in each for each in problems)
    with pytest.raises(ZooDamaged, match="row of model 'b'"):
        milvus.get("b")
    assert milvus.rebuild() == ["b"]
    assert milvus.verify() == [] and [found.id for found in milvus.models(Filter(families=("sd-1.5",)))] == ["a", "c"]


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ([], ZooDamaged),
        (["x"], ZooDamaged),
        (packed([1]), ZooDamaged),
        (packed([9, "s", 3, "exact", 1, ""]), ZooTooNew),
    ],
)
def test_the_row_of_the_zoo_itself(milvus: MilvusZoo, record: list[str], error: type[Exception]) -> None:
    """Without it there is no zoo, and a later layout is not touched."""
    milvus._files.upsert([{"id": "zoo", "shard": 0, "model": "", "record": record, "nothing": [0.0, 0.0]}])
    for use in (milvus.state, lambda: milvus.add(models("a"), vectors(1))):
        with pytest.raises(error, match=r"^[^\n]*expected [^\n]* found [^\n]*$"):
            use()


@pytest.mark.parametrize("value", [None, "", "x" * 300_000, {"a": ["\ud800", 1.5, None]}, list(range(1000))])
def test_packed(value: Any) -> None:
    """It comes back as it was, in texts that Milvus takes."""
    chunks = packed(value)
    assert unpacked(chunks) == value and all(chunk.isascii() and len(chunk) < 65_536 for chunk in chunks)


@pytest.mark.parametrize("chunks", [["!"], ["eJw="], ["bm90"], [""], ["é"], [5], None])
def test_unpacked_refuses(chunks: Any) -> None:
    """What was not packed is an error of two kinds."""
    with pytest.raises((ValueError, TypeError)):
        unpacked(chunks)


def test_words_and_folders() -> None:
    """As they are written into rows."""
    assert (
        tokens("Café STRASSE Straße v2 名") == ["cafe", "strasse", "strasse", "v2", tokens("名")[0]]
        and tokens("名")[0].isalnum()
    )
    named = replace(model("a", "Dog"), facts={"tags": ["cat"], "notes": "dog bird"}, found_by=FoundBy.METADATA)
    assert words_of(to_entry(named)).split().count("dog") == 2 * 10 + 2  # each text is spelt in two ways
    assert len(folders_of(["/a/b", "/a/c", None, "C:\\x\\y"])) == 4
