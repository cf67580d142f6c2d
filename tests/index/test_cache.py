"""An engine on the disk that is damaged, foreign, half written or a lie: answers stay those of the catalogue."""

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
from zoo_oracle import DIM, SPACE, models, nearest, same, vectors

import loradex.index.sqlite.saved_engines
from loradex.index import Zoo, ZooDamaged
from loradex.index.sqlite.engine import ExactOnGpu
from loradex.index.sqlite.saved_engines import FOLDER, LARGEST_MANIFEST, MANIFEST, read_array, write_array

N = 700
IDS = [f"m{i:03}" for i in range(N)]
GIVEN = vectors(N)
STATE = dict(zip(IDS, GIVEN, strict=True))
QUERY = vectors(1, seed=9)[0]
EXPECTED = nearest(STATE, QUERY, 5)
KINDS = ["exact", "codes"]


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed zoo with an engine on the disk."""
    return saved(tmp_path_factory.mktemp("made") / "zoo", request.param, GIVEN)


@pytest.fixture
def engine(made: Path, tmp_path: Path) -> Path:
    """The folder of an engine in a zoo of its own."""
    return engine_of(shutil.copytree(made, tmp_path / "zoo"))


def saved(folder: Path, kind: str, given: Any) -> Path:
    """A zoo of all models with an engine of a kind on the disk."""
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models(IDS), given)
        zoo.save_engine(kind)
    return folder


def engine_of(zoo: Path) -> Path:
    """The folder of its one engine."""
    (folder,) = (zoo / FOLDER).iterdir()
    return folder


def check(zoo: Path) -> None:
    """Open it for reading and search."""
    with Zoo.open(zoo, read_only=True) as reader:
        assert same(reader.search(QUERY, 5), EXPECTED)


def is_read(zoo: Path) -> bool:
    """Whether a search used the engine on the disk."""
    reads: list[int] = []
    real = loradex.index.sqlite.snapshot.read_changes

    def counted(*arguments: Any) -> Any:
        found = real(*arguments)
        reads.append(len(found[1]))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loradex.index.sqlite.snapshot, "read_changes", counted)
        check(zoo)
    return sum(reads) < N


FILES = ["manifest.json", "keys.bin", "vectors"]


def file_of(engine: Path, name: str) -> Path:
    """One of its files; the third is that of vectors, or the first of those of codes."""
    others = sorted(path for path in engine.iterdir() if path.name not in FILES)
    return others[0] if name == "vectors" else engine / name


def test_a_sound_engine_is_used(engine: Path) -> None:
    """And no vector is read from the catalogue to fill another."""
    assert is_read(engine.parents[1])


@pytest.mark.parametrize("name", FILES)
def test_damaged(engine: Path, name: str) -> None:
    """Each file truncated, extended, with a bit flipped, deleted, in turn: right answers, and vectors and keys that are damaged are not used."""
    zoo, path = engine.parents[1], file_of(engine, name)
    whole = path.read_bytes()
    rng = np.random.default_rng(6)
    flips = rng.integers(0, len(whole), 200).tolist()
    contents = [whole[:offset] + bytes([whole[offset] ^ 1 << offset % 8]) + whole[offset + 1 :] for offset in flips]
    contents += [whole[:size] for size in (0, 1, len(whole) // 2, len(whole) - 1)] + [
        whole + extra for extra in (b"\0", b"x" * 99, whole)
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
    path.write_bytes(whole)
    assert is_read(zoo)


@pytest.mark.parametrize(
    "names", [["manifest.json"], ["keys.bin"], ["vectors"], ["manifest.json", "keys.bin", "vectors"]]
)
def test_another_zoos(engine: Path, names: list[str], tmp_path: Path) -> None:
    """Files of an engine of other vectors, of the same number and kind, in the place of ours."""
    kind = json.loads((engine / MANIFEST).read_text())["engine"]
    other = engine_of(saved(tmp_path / "other", kind, vectors(N, seed=5)))
    for name in names:
        shutil.copy(file_of(other, name), file_of(engine, name))
    check(engine.parents[1])
    if names != ["keys.bin"]:  # the same in both
        assert not is_read(engine.parents[1])


def test_another_zoos_whole_folder(engine: Path, tmp_path: Path) -> None:
    """Under its own name, or under that of ours."""
    other = engine_of(saved(tmp_path / "other", "exact", vectors(N, seed=5)))
    shutil.copytree(other, engine.parent / other.name)
    check(engine.parents[1])
    shutil.rmtree(engine)
    check(engine.parents[1])
    (engine.parent / other.name).rename(engine)
    assert not is_read(engine.parents[1])


def lies(manifest: dict[str, Any]) -> Iterator[Any]:
    """Manifests that are not what was written."""
    arrays = manifest["arrays"]
    yield from (
        [],
        {},
        None,
        7,
        "text",
        manifest | {"format": 2},
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


def test_a_manifest_that_lies(engine: Path) -> None:
    """Of shapes, types, checksums, names and engines that are not there: none is used."""
    path = engine / MANIFEST
    for said in lies(json.loads(path.read_text())):
        path.write_text(json.dumps(said))
        assert not is_read(engine.parents[1]), said
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
def test_folders_of_other_names(engine: Path, name: str) -> None:
    """They are passed over."""
    shutil.copytree(engine, engine.parent / name)
    check(engine.parents[1])
    engine.rename(engine.parents[1] / "away")
    assert not is_read(engine.parents[1])


def test_no_more_memory_than_the_catalogue_needs(engine: Path) -> None:
    """A file of a terabyte of holes, with a manifest that fits it, is not read."""
    said = json.loads((engine / MANIFEST).read_text())
    for name, width in (("keys", 8), *((name, DIM * 4) for name in said["arrays"] if name != "keys")):
        size = 2**40 // width
        lie = said | {
            "arrays": said["arrays"]
            | {
                name: {
                    "dtype": "<i8" if name == "keys" else "<f4",
                    "shape": [size] if name == "keys" else [size, DIM],
                    "crc32": 0,
                }
            }
        }
        (engine / MANIFEST).write_text(json.dumps(lie))
        whole = (engine / f"{name}.bin").read_bytes()
        with (engine / f"{name}.bin").open("wb") as file:
            file.truncate(size * width)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert not is_read(engine.parents[1])
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
        (engine / f"{name}.bin").write_bytes(whole)


def test_sound_files_that_are_not_the_catalogues(engine: Path) -> None:
    """With right checksums: other keys, too few or none, keys out of order; the catalogue answers, or says what it lacks."""
    said = json.loads((engine / MANIFEST).read_text())
    held = next(name for name in said["arrays"] if name != "keys")
    keys, rows = (read_array(engine / f"{name}.bin", said["arrays"][name], 2**30) for name in ("keys", held))
    for other, their in (
        (keys[:-1], rows[:-1]),
        (keys[:0], rows[:0]),
        (keys[::-1], rows),
        (keys * 0, rows),
        (keys, rows[:-1]),
        (keys.astype(np.int32), rows),
    ):
        entries = said["arrays"] | {
            "keys": write_array(engine / "keys.bin", other),
            held: write_array(engine / f"{held}.bin", their),
        }
        (engine / MANIFEST).write_text(json.dumps(said | {"arrays": entries}))
        check(engine.parents[1])
    entries = said["arrays"] | {
        "keys": write_array(engine / "keys.bin", keys + 10_000),
        held: write_array(engine / f"{held}.bin", rows),
    }
    (engine / MANIFEST).write_text(json.dumps(said | {"arrays": entries}))
    with pytest.raises(ZooDamaged):
        check(engine.parents[1])


def test_vectors_lost_beneath_codes(tmp_path: Path) -> None:
    """Codes answer from the catalogue; a row that it lost is named."""
    folder = saved(tmp_path / "zoo", "codes", GIVEN)
    best = EXPECTED[0][0]
    with Zoo.open(folder) as zoo, zoo._writing() as connection:
        connection.execute("DELETE FROM vectors WHERE key = (SELECT key FROM models WHERE id = ?)", (best,))
    with pytest.raises(ZooDamaged, match="as it was written"):
        check(folder)


def test_an_engine_of_a_gpu_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its vectors are used without one."""
    folder = saved(tmp_path / "zoo", "exact", GIVEN)
    path = engine_of(folder) / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engine": ExactOnGpu.name}))
    monkeypatch.setattr(loradex.index.sqlite.saved_engines, "has_gpu", lambda: False)
    assert is_read(folder)


def test_when_it_is_worth_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for few vectors; not while little was added; and what is older is dropped."""
    monkeypatch.setattr(loradex.index.sqlite.saved_engines, "WORTH_IT", 100)
    monkeypatch.setattr(loradex.index.sqlite.zoo, "WORTH_IT", 100)
    given = vectors(300)
    ids = [f"m{i:03}" for i in range(300)]
    with Zoo.create(folder, SPACE, DIM) as zoo:
        assert not zoo.save_engine()
        zoo.add(models(ids[:99]), given[:99])
        assert not zoo.save_engine()
        zoo.add(models(ids[99:200]), given[99:200])
        assert zoo.save_engine()
        first = engine_of(folder)
        zoo.add(models(ids[200:209]), given[200:209])  # less than a twentieth
        assert not zoo.save_engine() and engine_of(folder) == first
        zoo.add(models(ids[209:]), given[209:])
        assert zoo.save_engine() and engine_of(folder) != first
        assert zoo.save_engine("codes")  # asked for
        assert json.loads((engine_of(folder) / MANIFEST).read_text())["engine"] == "codes"
        zoo.compact()
        assert zoo.save_engine()  # the state of the last is forgotten
        assert len(list((folder / FOLDER).iterdir())) == 1
        assert zoo.verify() == []
    with Zoo.open(folder, read_only=True) as zoo:
        assert same(zoo.search(QUERY, 9), nearest(dict(zip(ids, given, strict=True)), QUERY, 9))


SAVE_AND_DIE = """
import os, signal, sys
from pathlib import Path
import loradex.index.sqlite.saved_engines
from loradex.index import Zoo
real, left = loradex.index.sqlite.saved_engines.sync, int(sys.argv[2])
def sync(file):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(file)
loradex.index.sqlite.saved_engines.sync = sync
Zoo.open(Path(sys.argv[1])).save_engine("exact")
"""


@pytest.mark.parametrize("syncs", [0, 1, 2])
def test_killed_while_saving(engine: Path, syncs: int) -> None:
    """Half an engine is not used, and the next save sweeps it away."""
    zoo = engine.parents[1]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-B", "-c", SAVE_AND_DIE, zoo, str(syncs)], env=environment, check=False)  # noqa: S603
    assert killed.returncode == -9
    assert [path.name[0] for path in (zoo / FOLDER).iterdir()] == ["."]
    assert not is_read(zoo)
    with Zoo.open(zoo) as writer:
        assert writer.save_engine("exact")
        assert writer.verify() == []
    assert [path.name[0] != "." for path in (zoo / FOLDER).iterdir()] == [True]
    assert is_read(zoo)
