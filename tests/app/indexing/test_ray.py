"""Files read by a Ray cluster of two processors: the zoo that threads of this machine make, whatever happens to workers and to finished parts."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

import loradex.app.indexing.ray.reading_engine
from loradex.app.commands.main import main
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.file_reader import Outcome, Reader, Task
from loradex.app.indexing.folder_scan import Scan
from loradex.app.indexing.ingest import index_places
from loradex.app.indexing.local_reading_engine import LocalEngine
from loradex.app.indexing.parts_folder import Parts
from loradex.app.indexing.ray.cluster import connected, import_ray, workers_of
from loradex.app.indexing.ray.reading_engine import RayEngine
from loradex.app.indexing.reading_engines import EngineName, engine_of
from loradex.app.paths import MINIATURE, own_cache
from loradex.index import KnownFile, Zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import EngineError

SHIPPED = sorted(MINIATURE.glob("models/mini-*/*/*/*.safetensors"))[::6]
pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINIATURE / "encoder")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster for all tests; a run ends its own, and leaves one that is there."""
    with connected(import_ray(own=True), None, processors=2):
        yield


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some dozens of LoRAs, copies of two, a picture, and files that are none."""
    folder = tmp_path_factory.mktemp("loras")
    for number, path in enumerate(SHIPPED):
        shutil.copy(path, folder / f"{number:03}.safetensors")
    for number in (3, 40):
        shutil.copy(SHIPPED[number], folder / f"copy of {number}.safetensors")
    Image.new("RGB", (600, 400), "blue").save(folder / "003.png")
    (folder / "page.safetensors").write_text("<!DOCTYPE html>")
    with open(os.fsencode(folder) + b"/caf\xe9.safetensors", "wb") as file:
        file.write(SHIPPED[1].read_bytes()[:-1])
    return folder


@pytest.fixture(scope="module")
def places(loras: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The folder, and a store of five files."""
    store = tmp_path_factory.mktemp("store")
    for path in sorted(loras.glob("0[0-4]1.safetensors")):
        shutil.copy(path, store)
    return [str(loras), f"file://{store}"]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loradex.app.indexing.ray.reading_engine, "BATCH", 8)


def contents(zoo: Path) -> tuple[dict[str, Any], np.ndarray, list[bytes]]:
    """All that a zoo holds, its vectors, and its drawings."""
    with Zoo.open(zoo, read_only=True) as opened:
        models = list(opened.models())
        ids = [model.id for model in models]
        vectors = opened.vectors_of(ids)
        said = {
            "models": models,
            "prints": opened.fingerprints(ids),
            "files": opened.known_files(),
            "with vectors": list(vectors),
        }
        return (
            said,
            np.stack(list(vectors.values())),
            [path.read_bytes() for path in sorted((zoo / "previews").glob("*"))],
        )


def same_zoo(first: tuple[IndexAnswer, Path], second: tuple[IndexAnswer, Path]) -> None:
    """Both runs and zoos say the same."""
    assert replace(first[0], zoo="") == replace(second[0], zoo="")
    (said, vectors, drawings), (other_said, other_vectors, other_drawings) = contents(first[1]), contents(second[1])
    assert said == other_said
    assert drawings == other_drawings
    assert len(drawings) == 1
    np.testing.assert_allclose(vectors, other_vectors, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def by_threads(
    places: list[str], encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[IndexAnswer, Path]:
    zoo = tmp_path_factory.mktemp("local") / "zoo"
    return index_places(places, zoo, encoder), zoo


def workers() -> list[psutil.Process]:
    """The processes of this test's cluster that read files."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "MapWorker" in process.name() + " ".join(process.cmdline())
    ]


def after_parts(monkeypatch: pytest.MonkeyPatch, count: int, do: Callable[[], None]) -> None:
    """Do something once so many parts are on the disk."""
    add, left = Parts.add, [count]

    def adding(self: Parts, raw: bytes) -> None:
        add(self, raw)
        left[0] -= 1
        if not left[0]:
            do()

    monkeypatch.setattr(Parts, "add", adding)


@pytest.mark.usefixtures("cluster", "small_batches")
def test_a_worker_killed_in_mid_run_changes_nothing(
    places: list[str],
    tmp_path: Path,
    encoder: Encoder,
    by_threads: tuple[IndexAnswer, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[int] = []

    def kill_all() -> None:
        for process in workers():
            process.send_signal(signal.SIGKILL)
            killed.append(process.pid)

    after_parts(monkeypatch, 1, kill_all)
    zoo = tmp_path / "zoo"
    answer = index_places(places, zoo, encoder, engine=RayEngine(tmp_path / "parts", str(zoo)))
    assert killed
    assert answer.by_weights == len(SHIPPED) + 2 + 5
    assert len(answer.refused) == 2
    same_zoo((answer, zoo), by_threads)
    assert not (tmp_path / "parts").exists()


@pytest.mark.usefixtures("cluster", "small_batches")
def test_a_file_that_kills_its_workers_is_refused(
    loras: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loradex.app.indexing.ray.reading_engine, "TRIES", 1)

    class Deadly(Reader):
        """Ends with one file as a process without memory does, and stumbles over another."""

        def read(self, task: Task) -> Outcome:
            if task.file.path.endswith("004.safetensors"):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(task)

        def open(self, path: str) -> Any:
            if path.endswith("005.safetensors"):
                raise RuntimeError("an error\nof ours")
            return super().open(path)

    tasks = tasks_of(loras)[:8]
    found = list(RayEngine(tmp_path / "parts", "zoo").outcomes(tasks, Deadly(encoder)))
    assert [outcome.file for outcome in found] == [task.file for task in tasks]
    refused = {Path(outcome.file.path).name: outcome for outcome in found if outcome.refusal}
    assert list(refused) == ["004.safetensors", "005.safetensors"]
    assert not any(outcome.noted for outcome in refused.values())  # the next run tries again
    assert "1 workers ended with it" in str(refused["004.safetensors"].refusal)
    assert "error of Loradex itself, RuntimeError: an error of ours" in str(refused["005.safetensors"].refusal)


def tasks_of(folder: Path) -> list[Task]:
    return [Task(KnownFile(path, size, mtime_ns)) for path, (size, mtime_ns) in Scan.of([folder]).files.items()]


@pytest.mark.usefixtures("cluster", "small_batches")
def test_a_run_that_was_stopped_goes_on_from_its_parts(
    places: list[str],
    tmp_path: Path,
    encoder: Encoder,
    by_threads: tuple[IndexAnswer, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zoo, parts = tmp_path / "zoo", tmp_path / "parts"

    def stop() -> None:
        raise KeyboardInterrupt

    after_parts(monkeypatch, 2, stop)
    with pytest.raises(KeyboardInterrupt):
        index_places(places, zoo, encoder, engine=RayEngine(parts, str(zoo)))
    finished = sorted(parts.glob("part-*"))
    assert len(finished) == 2
    kept = pq.read_metadata(finished[1]).num_rows
    finished[0].write_bytes(finished[0].read_bytes()[:-1])
    left: list[int] = []
    read = RayEngine._read
    monkeypatch.setattr(
        RayEngine, "_read", lambda self, tasks, reader: left.append(len(tasks)) or read(self, tasks, reader)
    )
    answer = index_places(places, zoo, encoder, engine=RayEngine(parts, str(zoo)))
    assert left == [answer.files - kept]
    same_zoo((answer, zoo), by_threads)


@pytest.mark.parametrize(
    ("resources", "batches", "expected"),
    [
        ({"CPU": 2.0}, 9, (2, 0.0)),
        ({"CPU": 16.0}, 3, (3, 0.0)),
        ({}, 3, (1, 0.0)),
        ({"CPU": 16.0, "GPU": 1.0}, 99, (8, 1 / 8)),
    ]
    + [({"CPU": 5.0, "GPU": 2.0}, 99, (5, 1 / 3)), ({"CPU": 1.0, "GPU": 4.0}, 99, (1, 1.0))],
)
def test_workers_take_all_processors_and_share_gpus(
    resources: dict[str, float], batches: int, expected: tuple[int, float]
) -> None:
    assert workers_of(resources, batches) == expected


def test_an_expert_on_a_device_says_the_same(encoder: Encoder, loras: Path) -> None:
    tasks = tasks_of(loras)[:2]
    for here, there in zip(
        *([reader.read(task) for task in tasks] for reader in (Reader(encoder), Reader(encoder).on("cpu"))), strict=True
    ):
        assert here.entry
        assert there.entry
        assert here.entry.model == there.entry.model
        np.testing.assert_array_equal(here.entry.vector, there.entry.vector)


def test_without_ray_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(
        sys, "argv", ["loradex", "index", str(tmp_path), "--zoo", str(tmp_path / "zoo"), "--engine", "ray"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.count("\n") == 1
    assert said.strip().endswith("pip install 'loradex[ray]'")
    assert not (tmp_path / "zoo").exists()


def test_the_local_engine_knows_nothing_of_ray() -> None:
    rooms = "loradex.app.commands.main, loradex.app.indexing.ingest, loradex.app.indexing.reading_engines"
    program = f"import sys, {rooms}; sys.exit('ray' in sys.modules or 'loradex.app.indexing.ray.reading_engine' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_options_of_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(engine_of(EngineName.LOCAL, "zoo"), LocalEngine)
    with pytest.raises(EngineError, match="expected --engine ray with them"):
        engine_of(EngineName.LOCAL, "zoo", tmp_path)
    engine = engine_of(EngineName.RAY, "zoo", address="127.0.0.1:1")
    assert isinstance(engine, RayEngine)
    assert engine.folder.is_relative_to(own_cache())
    assert engine.folder != engine_of(EngineName.RAY, "another zoo").folder  # type: ignore[attr-defined]
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    assert engine_of(EngineName.RAY, "zoo").address == "127.0.0.1:2"  # type: ignore[attr-defined]
    monkeypatch.setenv("RAY_ADDRESS", "local")  # with which Ray itself would start one that others reach
    assert engine_of(EngineName.RAY, "zoo").address is None  # type: ignore[attr-defined]


def test_a_cluster_that_is_not_there(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RayEngine(tmp_path / "parts", "zoo", "127.0.0.1:1")
    monkeypatch.setattr(engine.ray, "is_initialized", lambda: False)
    with pytest.raises(EngineError, match=r"expected the cluster at 127\.0\.0\.1:1 to work, found: .*--ray-address"):
        list(engine.outcomes([Task(KnownFile("a", 1, 1))], Reader(encoder)))
