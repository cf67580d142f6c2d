"""Saved engines that are damaged, foreign, incomplete or forged: results stay those of the catalogue."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loradex.index.sqlite.saved_engines
import loradex.index.sqlite.snapshot
import loradex.index.sqlite.vector_index
from loradex.index import Zoo, ZooDamaged
from loradex.index.sqlite.engine import GpuEngine
from loradex.index.sqlite.saved_engines import FOLDER, LARGEST_MANIFEST, MANIFEST, read_array, write_array
from tests.index.zoo_oracle import (
    DIM,
    PYTHONPATH,
    SPACE,
    agree,
    models,
    nearest,
    random_positions,
    random_vectors,
    same,
)

N = 700
IDS = [f"m{i:03}" for i in range(N)]
POSITIONS = random_positions(N)
STATE = dict(zip(IDS, POSITIONS, strict=True))
QUERY = random_vectors(1, seed=9)[0]
EXPECTED = nearest(STATE, QUERY, 5)
KINDS = ["exact", "codes"]


@pytest.fixture(scope="module", params=KINDS)
def saved_zoo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed zoo with a saved engine of each kind."""
    return create_zoo(tmp_path_factory.mktemp("saved") / "zoo", request.param, POSITIONS)


@pytest.fixture
def engine(saved_zoo: Path, tmp_path: Path) -> Path:
    """The folder of the saved engine in a copy of the zoo."""
    return engine_of(shutil.copytree(saved_zoo, tmp_path / "zoo"))


def create_zoo(folder: Path, kind: str, positions: Any) -> Path:
    """A zoo of all models with a saved engine of a kind."""
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models(IDS), positions)
        zoo.save_engine(kind)
    return folder


def engine_of(zoo: Path) -> Path:
    """The folder of the one saved engine of a zoo."""
    (folder,) = (zoo / FOLDER).iterdir()
    return folder


def check(zoo: Path) -> None:
    """Open a zoo for reading and check the hits of a search."""
    with Zoo.open(zoo, read_only=True) as reader:
        hits = reader.search(QUERY, 5)
        assert same(hits, EXPECTED) and agree(hits, STATE, QUERY)


def is_read(zoo: Path) -> bool:
    """Whether a search used the saved engine, so that fewer vectors were read from the catalogue."""
    counts: list[int] = []
    read_changes = loradex.index.sqlite.snapshot.read_changes

    def counted(*arguments: Any) -> Any:
        found = read_changes(*arguments)
        counts.append(len(found[1]))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loradex.index.sqlite.snapshot, "read_changes", counted)
        check(zoo)
    return sum(counts) < N


FILES = ["manifest.json", "slots.bin", "vectors"]


def file_of(engine: Path, name: str) -> Path:
    """A file of an engine; ``vectors`` is that of vectors, or the first of those of codes."""
    arrays = sorted(path for path in engine.iterdir() if path.name not in FILES)
    return arrays[0] if name == "vectors" else engine / name


def test_sound_engine(engine: Path) -> None:
    """It is used, and no vector is read from the catalogue."""
    assert is_read(engine.parents[1])


@pytest.mark.parametrize("name", FILES)
def test_damaged(engine: Path, name: str) -> None:
    """Each file cut, extended, with a bit flipped, missing, or replaced by a folder or pipe: it is not used."""
    zoo, path = engine.parents[1], file_of(engine, name)
    original = path.read_bytes()
    rng = np.random.default_rng(6)
    flips = rng.integers(0, len(original), 200).tolist()
    contents = [
        original[:offset] + bytes([original[offset] ^ 1 << offset % 8]) + original[offset + 1 :] for offset in flips
    ]
    contents += [original[:size] for size in (0, 1, len(original) // 2, len(original) - 1)] + [
        original + extra for extra in (b"\0", b"x" * 99, original)
    ]
    for at, content in enumerate(contents):
        path.write_bytes(content)
        if name != MANIFEST and at % 20 == 0:
            assert not is_read(zoo), at
        else:
            check(zoo)
    path.unlink()
    assert not is_read(zoo)
    path.mkdir()
    assert not is_read(zoo)
    path.rmdir()
    os.mkfifo(path)
    assert not is_read(zoo)
    path.unlink()
    path.write_bytes(original)
    assert is_read(zoo)


@pytest.mark.parametrize(
    "names", [["manifest.json"], ["slots.bin"], ["vectors"], ["manifest.json", "slots.bin", "vectors"]]
)
def test_files_of_another_zoo(engine: Path, names: list[str], tmp_path: Path) -> None:
    """Files of an engine of the same kind with as many other vectors."""
    kind = json.loads((engine / MANIFEST).read_text())["engine"]
    other = engine_of(create_zoo(tmp_path / "other", kind, random_positions(N, seed=5)))
    for name in names:
        shutil.copy(file_of(other, name), file_of(engine, name))
    check(engine.parents[1])
    if names != ["slots.bin"]:  # the same in both
        assert not is_read(engine.parents[1])


def test_folder_of_another_zoo(engine: Path, tmp_path: Path) -> None:
    """Under its own name, and under the name of the right engine."""
    other = engine_of(create_zoo(tmp_path / "other", "exact", random_positions(N, seed=5)))
    shutil.copytree(other, engine.parent / other.name)
    check(engine.parents[1])
    shutil.rmtree(engine)
    check(engine.parents[1])
    (engine.parent / other.name).rename(engine)
    assert not is_read(engine.parents[1])


def forged_manifests(manifest: dict[str, Any]) -> Iterator[Any]:
    """Manifests with wrong values."""
    arrays = manifest["arrays"]
    yield from (
        [],
        {},
        None,
        7,
        "text",
        manifest | {"format": 1},
        manifest | {"dim": 11},
        manifest | {"dim": "12"},
        manifest | {"engine": "hnsw"},
    )
    yield from (
        manifest | {"engine": ["exact"]},
        manifest | {"engine": {"codes": "exact", "exact": "codes"}[manifest["engine"]]},
        manifest | {"arrays": []},
    )
    yield from (
        manifest | {"arrays": {}},
        manifest | {"arrays": dict.fromkeys(arrays)},
        manifest | {"state": "1-00"},
        manifest | {"state": None},
    )
    for name in arrays:
        shape, dtype = arrays[name]["shape"], arrays[name]["dtype"]
        shapes = [
            [2**62],
            [2**62, 2**62],
            [-1, -1],
            [0],
            [],
            [N],
            [N * 12],
            [1, *shape],
            [*shape, 1],
            [2**40, 0],
            shape * 30,
            "many",
            [None],
            [1.5],
            [1e400],
            [[N]],
            {},
            None,
        ]
        for other in shapes:
            if other != shape:
                yield manifest | {"arrays": arrays | {name: arrays[name] | {"shape": other}}}
        for other in (
            "O",
            "V4",
            "S4",
            "U1",
            "M8[s]",
            "f4,f4",
            "(1000000,)f4",
            ">f4",
            ">i8",
            "<i4",
            "<u8",
            "|b1",
            "c8",
            "<f2",
            "x",
            "",
            None,
            5,
            "O" * 1000,
            "__import__('os')",
        ):
            if other != dtype:
                yield manifest | {"arrays": arrays | {name: arrays[name] | {"dtype": other}}}
        for check_ in (0, -1, 2**70, "x", None):
            yield manifest | {"arrays": arrays | {name: arrays[name] | {"crc32": check_}}}
        for path in ("../../catalogue.sqlite", "/etc/passwd", "..", "\0", "x" * 5000):
            yield manifest | {"arrays": {path: arrays[name]}}
            yield manifest | {"engine": path}


def test_forged_manifests(engine: Path) -> None:
    """Wrong shapes, types, checksums, names and engines, and texts that are not JSON: the engine is not used."""
    path = engine / MANIFEST
    for forged in forged_manifests(json.loads(path.read_text())):
        path.write_text(json.dumps(forged))
        assert not is_read(engine.parents[1]), forged
    texts = ["[" * 60_000, '{"a":' * 10_000, "{}" + " " * LARGEST_MANIFEST, "\ufeff{}", "NaN", "1" * 5000, "\xff"]
    for text in texts:
        path.write_text(text, encoding="latin-1" if text == "\xff" else "utf-8")
        assert not is_read(engine.parents[1])


@pytest.mark.parametrize(
    "name",
    [
        "0-",
        "-",
        "x-00",
        "999999999999999999999999999-" + "0" * 16,
        "1-zz",
        "1-" + "0" * 200,
        "-5-" + "0" * 16,
        "1_0-" + "0" * 16,
        "\u0661-" + "0" * 16,
    ],
)
def test_invalid_folder_names(engine: Path, name: str) -> None:
    """Such folders are ignored."""
    shutil.copytree(engine, engine.parent / name)
    check(engine.parents[1])
    engine.rename(engine.parents[1] / "away")
    assert not is_read(engine.parents[1])


def test_no_more_memory_than_the_catalogue_needs(engine: Path) -> None:
    """A sparse file of a terabyte, with a manifest that fits it, is not read."""
    manifest = json.loads((engine / MANIFEST).read_text())
    for name, width in (("slots", 8), *((name, DIM * 4) for name in manifest["arrays"] if name != "slots")):
        size = 2**40 // width
        forged = manifest | {
            "arrays": manifest["arrays"]
            | {
                name: {
                    "dtype": "<i8" if name == "slots" else "<f4",
                    "shape": [size] if name == "slots" else [size, DIM],
                    "crc32": 0,
                }
            }
        }
        (engine / MANIFEST).write_text(json.dumps(forged))
        original = (engine / f"{name}.bin").read_bytes()
        with (engine / f"{name}.bin").open("wb") as file:
            file.truncate(size * width)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert not is_read(engine.parents[1])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
        (engine / f"{name}.bin").write_bytes(original)


def test_sound_files_that_differ_from_the_catalogue(engine: Path) -> None:
    """Files with valid checksums but other, too few or unordered slots: results are right, or damage is reported."""
    manifest = json.loads((engine / MANIFEST).read_text())
    array_name = next(name for name in manifest["arrays"] if name != "slots")
    slots, rows = (
        read_array(engine / f"{name}.bin", manifest["arrays"][name], 2**30) for name in ("slots", array_name)
    )
    for forged_slots, forged_rows in (
        (slots[:-1], rows[:-1]),
        (slots[:0], rows[:0]),
        (slots[::-1], rows),
        (slots * 0, rows),
        (slots, rows[:-1]),
        (slots.astype(np.int32), rows),
    ):
        entries = manifest["arrays"] | {
            "slots": write_array(engine / "slots.bin", forged_slots),
            array_name: write_array(engine / f"{array_name}.bin", forged_rows),
        }
        (engine / MANIFEST).write_text(json.dumps(manifest | {"arrays": entries}))
        check(engine.parents[1])
    entries = manifest["arrays"] | {
        "slots": write_array(engine / "slots.bin", slots + 80_000),
        array_name: write_array(engine / f"{array_name}.bin", rows),
    }
    (engine / MANIFEST).write_text(json.dumps(manifest | {"arrays": entries}))
    with pytest.raises(ZooDamaged):
        check(engine.parents[1])


def test_codes_of_a_lost_vector(tmp_path: Path) -> None:
    """The vectors of candidates are read from the catalogue; a missing row is an error."""
    folder = create_zoo(tmp_path / "zoo", "codes", POSITIONS)
    best = EXPECTED[0][0]
    with Zoo.open(folder) as zoo, zoo._catalogue.writing() as connection:
        connection.execute("DELETE FROM vectors WHERE key = (SELECT key FROM models WHERE id = ?)", (best,))
    with pytest.raises(ZooDamaged, match="as it was written"):
        check(folder)


def test_saved_gpu_engine_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its vectors are searched on the CPU."""
    folder = create_zoo(tmp_path / "zoo", "exact", POSITIONS)
    path = engine_of(folder) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engine": GpuEngine.name}))
    monkeypatch.setattr(loradex.index.sqlite.saved_engines, "has_gpu", lambda: False)
    assert is_read(folder)


def test_when_an_engine_is_saved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for few vectors, not while few were added since; older engines are deleted."""
    monkeypatch.setattr(loradex.index.sqlite.vector_index, "SAVE_FROM", 100)
    vectors = random_vectors(300)
    ids = [f"m{i:03}" for i in range(300)]
    with Zoo.create(folder, SPACE, DIM) as zoo:
        assert not zoo.save_engine()
        zoo.add(models(ids[:99]), vectors[:99])
        assert not zoo.save_engine()
        zoo.add(models(ids[99:200]), vectors[99:200])
        assert zoo.save_engine()
        first = engine_of(folder)
        zoo.add(models(ids[200:209]), vectors[200:209])  # less than a twentieth
        assert not zoo.save_engine() and engine_of(folder) == first
        zoo.add(models(ids[209:]), vectors[209:])
        assert zoo.save_engine() and engine_of(folder) != first
        assert zoo.save_engine("codes")  # a kind was vectors
        assert json.loads((engine_of(folder) / MANIFEST).read_text())["engine"] == "codes"
        zoo.compact()
        assert zoo.save_engine()  # the state of the saved one is no longer listed
        assert len(list((folder / FOLDER).iterdir())) == 1
        assert zoo.verify() == []
    with Zoo.open(folder, read_only=True) as zoo:
        assert same(zoo.search(QUERY, 9), nearest(dict(zip(ids, vectors, strict=True)), QUERY, 9))


SAVE_AND_DIE = """
import os, signal, sys
from pathlib import Path
import loradex.index.sqlite.saved_engines
from loradex.index import Zoo
real_sync, left = loradex.index.sqlite.saved_engines.sync, int(sys.argv[2])
def sync(file):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real_sync(file)
loradex.index.sqlite.saved_engines.sync = sync
Zoo.open(Path(sys.argv[1])).save_engine("exact")
"""


@pytest.mark.parametrize("syncs", [0, 1, 2])
def test_killed_while_saving(engine: Path, syncs: int) -> None:
    """An incomplete engine is not used, and the next save deletes it."""
    zoo = engine.parents[1]
    environment = os.environ | {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-B", "-c", SAVE_AND_DIE, zoo, str(syncs)], env=environment, check=False)  # noqa: S603
    assert killed.returncode == -9
    assert [path.name[0] for path in (zoo / FOLDER).iterdir()] == ["."]
    assert not is_read(zoo)
    with Zoo.open(zoo) as writer:
        assert writer.save_engine("exact")
        assert writer.verify() == []
    assert [path.name[0] != "." for path in (zoo / FOLDER).iterdir()] == [True]
    assert is_read(zoo)
