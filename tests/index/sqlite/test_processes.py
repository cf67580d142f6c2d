"""Processes and threads that share a zoo, some of them killed."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loradex.index import Filter, Zoo, ZooLocked
from loradex.index.sqlite.catalogue import CATALOGUE
from loradex.index.sqlite.saved_engines import FOLDER
from tests.index.sqlite.zoo_child import BATCH, batch_of, is_found
from tests.index.zoo_oracle import (
    DIM,
    KINDS,
    PYTHONPATH,
    SPACE,
    Given,
    State,
    agree,
    model,
    models,
    nearest,
    positions_of,
    random_positions,
    random_vectors,
    same,
)

HERE = Path(__file__).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start ``zoo_child.py``."""
    command = [sys.executable, "-B", str(HERE / "zoo_child.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)  # noqa: S603


def run(*arguments: object, timeout: float = 120) -> tuple[int, str, str]:
    """Run ``zoo_child.py`` to its end and return its exit status, output and errors."""
    with start(*arguments) as child:
        out, err = child.communicate(timeout=timeout)
    return child.returncode, out, err


@pytest.mark.parametrize("zoo", ["folder"], indirect=True)  # milvus-lite lets one process in
def test_second_writer(zoo: Zoo) -> None:
    """A second writer in the same process is refused without waiting; readers are not."""
    openings: list[Callable[[], Zoo]] = [
        lambda: Zoo.open(zoo.folder),
        lambda: Zoo.open_or_create(zoo.folder, SPACE, DIM),
        lambda: Zoo.create(zoo.folder, SPACE, DIM),
    ]
    for open_second in openings:
        with pytest.raises(ZooLocked, match="read_only=True"):
            open_second()
    zoo.add(models("a"), random_vectors(1))
    with Zoo.open(zoo.folder, read_only=True) as reader:
        assert len(reader) == 1
    zoo.close()
    Zoo.open(zoo.folder).close()


def test_second_writer_in_another_process(folder: Path) -> None:
    """It is refused too; a killed writer leaves no lock behind."""
    with start("hold", folder) as child:
        assert child.stdout and child.stdout.readline() == "open\n"
        with pytest.raises(ZooLocked):
            Zoo.open(folder)
        child.kill()
    with Zoo.open(folder) as zoo:
        assert zoo.add(models("a"), random_vectors(1)) == 1


@pytest.mark.parametrize("searched_before", [False, True])
def test_a_reader_sees_what_another_process_added(folder: Path, searched_before: bool) -> None:
    """Without opening the zoo again, whether or not it had a log when it was opened."""
    first, added = random_vectors(1), batch_of(0, 0)
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models("a"), first)
    with Zoo.open(folder, read_only=True) as reader:
        if searched_before:
            assert same(reader.search(first[0], 99), nearest({"a": first[0]}, first[0], 99))
        assert run("add", folder)[0] == 0
        assert same(reader.search(first[0], 99), nearest({"a": first[0], **added}, first[0], 99))
        with Zoo.open(folder) as zoo:
            zoo.remove(added)
            assert same(reader.search(first[0], 99), nearest({"a": first[0]}, first[0], 99))
    with Zoo.open(folder) as zoo:
        assert len(zoo) == 1


def family_of(id: str) -> str:
    """The family of a model of ``states``."""
    return "sdxl" if int(id[1:]) % 3 else "flux"


def states(engine: str) -> Iterator[tuple[Callable[[Zoo], object], State]]:
    """Steps of a writer that adds, replaces and removes models and saves the engine, with the state after each."""
    state: dict[str, Given] = {}
    for step in range(45):
        ids = [f"m{i:03}" for i in range(step * 7 % 40, step * 7 % 40 + 10)]
        if step % 9 == 8:
            yield lambda zoo: zoo.save_engine(engine), state
        elif step % 3 == 2:
            state = {id: vector for id, vector in state.items() if id not in ids}
            yield lambda zoo, ids=ids: zoo.remove(ids), state  # type: ignore[misc]
        else:
            batch = dict(zip(ids, random_positions(10, seed=step), strict=True))
            state = state | batch
            batch_models = [replace(model(id), family=family_of(id)) for id in batch]
            yield lambda zoo, made=batch_models, batch=batch: zoo.add(made, list(batch.values())), state  # type: ignore[misc]


@pytest.mark.parametrize(
    ("shared", "engine", "where"),
    [
        (True, "exact", Filter()),
        (False, "exact", Filter()),
        (True, "codes", Filter()),
        (False, "codes", Filter(families=("sdxl",), tags=("A",))),
        (True, "exact", Filter(families=("sdxl",), found_by=KINDS[1:])),
    ],
)
@pytest.mark.parametrize("zoo", ["folder"], indirect=True)  # milvus-lite lets one process in
def test_eight_searchers_and_a_writer(zoo: Zoo, shared: bool, engine: str, where: Filter) -> None:
    """Each result is that of one state between start and end of the search, for shared and separate zoo objects."""
    zoo.save_engine(engine)
    steps = list(states(engine))
    oracle = [
        {},
        *({id: vector for id, vector in state.items() if not where or family_of(id) == "sdxl"} for _, state in steps),
    ]
    queries = random_vectors(16, seed=77)
    begun = done = 0  # number of steps that were begun, and that ended

    def search(thread: int) -> int:
        searches = 0
        with nullcontext(zoo) if shared else Zoo.open(zoo.folder, read_only=True) as mine:
            while done < len(steps) or not searches:
                query = queries[(thread + searches) % 16]
                earliest = done
                hits = mine.search(query, 12, where)
                assert any(
                    same(hits, nearest(state, query, 12, where.kinds)) and agree(hits, state, query, where.kinds)
                    for state in oracle[earliest : begun + 1]
                )
                searches += 1
        return searches

    with ThreadPoolExecutor(8) as pool:
        searchers = [pool.submit(search, thread) for thread in range(8)]
        for step, _ in steps:
            begun += 1
            step(zoo)
            done += 1
        assert sum(searcher.result() for searcher in searchers) >= 8


def test_killed_while_adding(folder: Path, tmp_path: Path) -> None:
    """After 60 kills every acknowledged batch is in the zoo, by value, and no batch in part."""
    check_kills(folder, tmp_path / "acknowledged", 60)


@pytest.mark.long
def test_killed_a_thousand_times(folder: Path, tmp_path: Path) -> None:
    """The same after 1,000 kills."""
    check_kills(folder, tmp_path / "acknowledged", 1000)


def check_kills(folder: Path, notes: Path, kills: int) -> None:
    """Kill a process that adds, saves, compacts and rebuilds, many times, then check all acknowledged batches."""
    status, _, errors = run("kill", folder, notes, kills, 1, timeout=10 * kills)
    assert status == 0, errors
    acknowledged = [batch_of(*map(int, line.split())) for line in notes.read_text().splitlines()]
    assert len(acknowledged) > kills
    with Zoo.open(folder, space=SPACE, read_only=True) as zoo:  # the last kill left a log
        for batch in acknowledged:
            found_positions = zoo.positions_by_id(list(batch))
            for id, given in batch.items():
                expected = positions_of(given)
                assert list(found_positions[id]) == list(expected)
                for kind, position in found_positions[id].items():
                    np.testing.assert_allclose(position.vector, expected[kind].vector, rtol=0, atol=1e-7)
                    assert (position.scale, position.bias) == (expected[kind].scale, expected[kind].bias)
        for batch in acknowledged[-3:]:
            assert is_found(zoo, batch)
        found = [model.id.rsplit("-", 1)[0] for model in zoo.models()]
    assert all(found.count(name) == BATCH for name in set(found))
    assert len(acknowledged) <= len(set(found)) <= len(acknowledged) + kills
    with Zoo.open(folder) as zoo:
        assert len(zoo) == len(found)
        assert zoo.verify() == []
        assert zoo.rebuild("codes") == []
    assert sorted(path.name for path in folder.iterdir()) == [CATALOGUE, FOLDER, "writer.lock"]
    assert not list((folder / FOLDER).glob(".*"))  # what a killed save left is swept


def test_read_only_folder(folder: Path) -> None:
    """Reading creates no file."""
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models("ab"), random_vectors(2))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    folder.chmod(0o555)
    with Zoo.open(folder, read_only=True) as zoo:
        assert zoo.search(random_vectors(1)[0], 1)[0].model.id == "a"
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.fixture
def public() -> Iterator[Path]:
    """A zoo of one model that only its owner may write."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        folder = Path(parent) / "zoo"
        with Zoo.create(folder, SPACE, DIM) as zoo:
            zoo.add(models("a"), random_vectors(1))
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def test_reader_without_write_access(public: Path) -> None:
    """It reads zoos that are closed, in WAL mode without a log, or being written, and cannot write."""
    assert run("read_as_nobody", public) == (0, "1 a\n", "")
    status, _, errors = run("write_as_nobody", public)
    assert status == 1 and "ZooReadOnly" in errors.splitlines()[-1] and "open it with read_only=True" in errors
    with closing(sqlite3.connect(public / CATALOGUE)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    assert not (public / f"{CATALOGUE}-wal").exists()
    assert run("read_as_nobody", public) == (0, "1 a\n", "")
    (public / f"{CATALOGUE}-wal").write_bytes(b"log")
    status, _, errors = run("read_as_nobody", public)
    assert status == 1 and "found the log of a killed writer" in errors
    (public / f"{CATALOGUE}-wal").unlink()
    public.chmod(0o755)
    with Zoo.open(public) as zoo:
        zoo.add(models(["b"]), random_vectors(1, seed=4))
        assert run("read_as_nobody", public) == (0, "2 a\n", "")
