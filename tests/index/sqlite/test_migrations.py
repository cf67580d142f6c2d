"""Zoos of every earlier version, which are in tests/data as the Loradex of that version wrote them."""

import os
import re
import shutil
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import loradex.index.opening
import loradex.index.sqlite.schema
from loradex.index import Evidence, Filter, KnownFile, Model, Zoo, ZooOutdated, open_zoo
from loradex.index.lock import LOCK, WriterLock
from loradex.index.sqlite.catalogue import CATALOGUE
from loradex.index.sqlite.saved_engines import FOLDER
from tests.index.zoo_oracle import DIM, KINDS, SPACE, agree, nearest, random_positions, random_vectors, same, stores

DATA = Path(__file__).parents[2] / "data"
QUERY = random_vectors(1, seed=9)[0]
STATE = dict(zip("abc", random_vectors(3), strict=True))


def old_zoo(version: int, parent: Path) -> Path:
    """A copy of the zoo of a version."""
    return shutil.copytree(DATA / f"zoo-v{version}", parent / "zoo")


def tables_of(folder: Path) -> list[str]:
    """The statements that made the tables and indexes of a catalogue, but for their quotes."""
    with closing(sqlite3.connect(folder / CATALOGUE)) as connection:
        rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return sorted(sql.replace('"', "") for (sql,) in rows)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_is_migrated(tmp_path: Path, version: int) -> None:
    """A vector of before is a position by pictures, scored by its cosine; all else is as it was."""
    folder = old_zoo(version, tmp_path)
    ids = ["a", "b", "c"] if version == 1 else ["a", "b", "c", "d"]
    with pytest.raises(
        ZooOutdated, match=rf"schema version 4, found {version}; migrate it with `loradex zoo compact --zoo "
    ):
        Zoo.open(folder, read_only=True)
    with Zoo.open(folder) as zoo:
        assert zoo.verify() == []
        assert [model.id for model in zoo.models()] == ids
        assert stores(zoo, STATE)
        hits = zoo.search(QUERY, 9)
        assert same(hits, nearest(STATE, QUERY, 9)) and agree(hits, STATE, QUERY)
        assert zoo.known_files()["/loras/bad"].refusal == "expected x"
        assert zoo.fingerprints() == ({} if version == 1 else {"a": b"print a"})
        assert sorted(model.id for model in zoo.find(["a LoRA"])) == ["a", "b", "c"]
        assert zoo.counts("found_by") == {"picture": 3} | ({} if version == 1 else {"metadata": 1})
        if version > 1:
            assert (zoo.get("d").name, zoo.get("d").found_by) == ("bad\udcffname", Evidence.METADATA)
            filtered = zoo.models(Filter(tags=("OHWX",), formats=("kohya",), lowest_rank=16, highest_rank=16))
            assert [model.id for model in filtered] == ["d"]
    with Zoo.open(folder, read_only=True) as zoo:
        assert len(zoo) == len(ids)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_migrated_zoo_is_as_a_new_one(tmp_path: Path, version: int) -> None:
    """It has the tables of a new zoo, and takes models of several kinds of evidence."""
    folder = old_zoo(version, tmp_path)
    Zoo.create(tmp_path / "new", SPACE, DIM).close()
    with Zoo.open(folder) as zoo:
        words, preview = random_positions(2, seed=4)
        zoo.add([zoo.get("a"), zoo.get("b")], [words, preview])
        state = STATE | {"a": words, "b": preview}
        for kinds in (KINDS, KINDS[1:]):
            hits = zoo.search(QUERY, 9, Filter(found_by=kinds))
            assert same(hits, nearest(state, QUERY, 9, kinds)) and agree(hits, state, QUERY, kinds)
        assert stores(zoo, state) and zoo.verify() == [] == zoo.rebuild("exact")
    assert tables_of(folder) == tables_of(tmp_path / "new")


def test_files_and_keys_of_version_3(tmp_path: Path) -> None:
    """A model is found by the folders of its copies; a key is never given again; the engine of before is not read."""
    folder = old_zoo(3, tmp_path)
    with closing(sqlite3.connect(folder / CATALOGUE)) as connection:
        assert connection.execute("SELECT key FROM removed").fetchall() == [(5,)]
    (engine,) = (folder / FOLDER).iterdir()
    with Zoo.open(folder) as zoo:
        assert [model.id for model in zoo.find(["kept"])] == ["a"]
        assert zoo.known_files()["/copies/kept/a2"] == KnownFile("/copies/kept/a2", 10, 20, "a", reader="r1")
        zoo.add([zoo.get("a")], [STATE["b"]])
        assert {hit.model.id for hit in zoo.search(STATE["b"], 2)} == {"a", "b"}
        assert zoo.verify() == []
        zoo.add([Model("new", "new", "flux")], [STATE["c"]])
        with zoo._catalogue.reading() as connection:
            assert connection.execute("SELECT key FROM models WHERE id = 'new'").fetchone() == (6,)
        zoo.save_engine("exact")
    assert not engine.exists() and len(list((folder / FOLDER).iterdir())) == 1


def test_damage_is_kept(tmp_path: Path) -> None:
    """Rows of version 3 that are not as they were written are named and removed after the migration, as before it."""
    folder = old_zoo(3, tmp_path)
    with closing(sqlite3.connect(folder / CATALOGUE)) as connection, connection:
        connection.execute("UPDATE vectors SET vector = zeroblob(48) WHERE key = 1")
        connection.execute("UPDATE models SET name = 'another' WHERE key = 4")
        connection.execute("DELETE FROM vectors WHERE key = 3")
    with Zoo.open(folder) as zoo:
        problems = "\n".join(zoo.verify())
        assert "position in slot 8 is not as it was written" in problems
        assert "model 'd' is not as it was written" in problems
        assert "model 'c' does not have the positions" in problems
        assert zoo.rebuild() == ["a", "c", "d"]
        assert zoo.verify() == [] and list(zoo.known_files()) == ["/loras/bad"]
        np.testing.assert_allclose(zoo.search(STATE["b"], 9)[0].score, 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_is_migrated_to_be_read(tmp_path: Path, version: int, caplog: pytest.LogCaptureFixture) -> None:
    """Reading answers at once, and leaves a zoo that a reader without ``open_zoo`` opens too."""
    folder = old_zoo(version, tmp_path)
    with open_zoo(folder, read_only=True) as zoo:
        assert zoo.read_only and stores(zoo, STATE)
        assert same(zoo.search(QUERY, 9), nearest(STATE, QUERY, 9))
    with Zoo.open(folder, read_only=True) as zoo:
        assert zoo.verify() == []
    assert not caplog.records  # it was fast


def test_a_long_migration_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(connection: sqlite3.Connection, path: Path) -> None:
        time.sleep(0.2)

    folder = old_zoo(3, tmp_path)
    caplog.set_level("INFO", "loradex")
    monkeypatch.setattr(loradex.index.opening, "LONG", 0.01)
    monkeypatch.setattr(loradex.index.sqlite.schema, "rewrite_words", slow)
    for _ in range(2):
        open_zoo(folder, read_only=True).close()
    (message,) = caplog.messages
    assert message == f"{folder}: migrating the zoo, which an earlier Loradex wrote; this happens once"


def test_threads_wait_for_the_one_that_migrates(tmp_path: Path) -> None:
    folder = old_zoo(3, tmp_path)

    def count() -> int:
        with open_zoo(folder, read_only=True) as zoo:
            return len(zoo)

    with ThreadPoolExecutor(8) as pool:
        assert [done.result() for done in [pool.submit(count) for _ in range(8)]] == [4] * 8


def test_an_old_zoo_with_another_writer_stays(tmp_path: Path) -> None:
    """The message is one line that names the command, quoted, and says what it waits for."""
    folder = shutil.copytree(DATA / "zoo-v3", tmp_path / "a zoo")
    before = (folder / CATALOGUE).read_bytes()
    lock = WriterLock(folder)
    expected = f"migrate it with `loradex zoo compact --zoo '{folder}'` as soon as no other process writes to it"
    with pytest.raises(ZooOutdated, match=f"^[^\n]*found 3; {re.escape(expected)}$"):
        open_zoo(folder, read_only=True)
    assert (folder / CATALOGUE).read_bytes() == before
    lock.release()
    open_zoo(folder, read_only=True).close()


def test_an_old_zoo_that_may_not_be_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = old_zoo(3, tmp_path)
    (folder / LOCK).touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write all files
    with pytest.raises(ZooOutdated, match=r"^[^\n]*compact --zoo \S+` as a user who may write to it, or after copying"):
        open_zoo(folder, read_only=True)
