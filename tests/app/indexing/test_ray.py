"""Ray and threads make the same zoo, whatever happens to workers and to finished parts; the cluster has two cores."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
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
from loradex.app.indexing.file_reader import FileReader, ReadResult, ReadTask
from loradex.app.indexing.folder_scan import FolderScan
from loradex.app.indexing.ingest import index_places
from loradex.app.indexing.local_reading_engine import LocalReadingEngine
from loradex.app.indexing.parts_folder import PartsFolder
from loradex.app.indexing.ray.cluster import connect, import_ray, plan_workers
from loradex.app.indexing.ray.reading_engine import RayReadingEngine
from loradex.app.indexing.reading_engines import EngineName, make_reading_engine
from loradex.app.paths import MINIATURE, user_cache_dir
from loradex.index import Evidence, KnownFile, Zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import EngineError
from tests.app.indexing.without_expert import ADVICE, REASONS, write_files

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
    """One cluster for all tests: a run uses the one that it is connected to, and does not stop it."""
    with connect(import_ray(starts_cluster=True), None, processors=2):
        yield


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some dozens of LoRAs, copies of two, a picture, a page that is no LoRA, and a truncated file."""
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
    """The folder, and a remote folder of five files."""
    store = tmp_path_factory.mktemp("store")
    for path in sorted(loras.glob("0[0-4]1.safetensors")):
        shutil.copy(path, store)
    return [str(loras), f"file://{store}"]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loradex.app.indexing.ray.reading_engine, "BATCH", 8)


def contents(zoo: Path) -> tuple[dict[str, Any], np.ndarray, list[bytes]]:
    """What a zoo holds: models and files, positions as rows of numbers, previews."""
    with Zoo.open(zoo, read_only=True) as opened:
        models = list(opened.models())
        ids = [model.id for model in models]
        positions = opened.positions_by_id(ids)
        catalogue = {
            "models": models,
            "prints": opened.fingerprints(ids),
            "files": opened.known_files(),
            "placed": [(id, kind) for id, placed in positions.items() for kind in placed],
        }
        return (
            catalogue,
            np.stack(
                [
                    [*position.vector, position.scale, position.bias]
                    for placed in positions.values()
                    for position in placed.values()
                ]
            ),
            [path.read_bytes() for path in sorted((zoo / "previews").glob("*"))],
        )


def assert_same_zoo(first: tuple[IndexAnswer, Path], second: tuple[IndexAnswer, Path]) -> None:
    """Both runs gave the same answer and the same zoo."""
    assert replace(first[0], zoo="") == replace(second[0], zoo="")
    (catalogue, vectors, previews), (other_catalogue, other_vectors, other_previews) = (
        contents(first[1]),
        contents(second[1]),
    )
    assert catalogue == other_catalogue
    assert previews == other_previews
    assert len(previews) == 1
    assert any(kind is Evidence.PREVIEW for _, kind in catalogue["placed"])
    np.testing.assert_allclose(vectors, other_vectors, rtol=0, atol=2e-6)


@pytest.fixture(scope="module")
def by_threads(
    places: list[str], encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[IndexAnswer, Path]:
    zoo = tmp_path_factory.mktemp("local") / "zoo"
    return index_places(places, zoo, encoder), zoo


def workers() -> list[psutil.Process]:
    """The worker processes of the cluster."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "MapWorker" in process.name() + " ".join(process.cmdline())
    ]


def after_parts(monkeypatch: pytest.MonkeyPatch, count: int, action: Callable[[], None]) -> None:
    """Call ``action`` once ``count`` parts are on disk."""
    add, left = PartsFolder.add, [count]

    def adding(self: PartsFolder, raw: bytes) -> None:
        add(self, raw)
        left[0] -= 1
        if not left[0]:
            action()

    monkeypatch.setattr(PartsFolder, "add", adding)


@pytest.mark.usefixtures("cluster", "small_batches")
def test_killed_workers_change_nothing(
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
    answer = index_places(places, zoo, encoder, engine=RayReadingEngine(tmp_path / "parts", str(zoo)))
    assert killed
    assert answer.by_weights == len(SHIPPED) + 2 + 5
    assert len(answer.refused) == 2
    assert_same_zoo((answer, zoo), by_threads)
    assert not (tmp_path / "parts").exists()


@pytest.mark.usefixtures("cluster", "small_batches")
def test_a_file_that_kills_its_workers_is_refused(
    loras: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loradex.app.indexing.ray.reading_engine, "MAX_ATTEMPTS", 1)

    class DeadlyReader(FileReader):
        """Kills its process at one file, as the system does without memory, and raises at another."""

        def read(self, task: ReadTask) -> ReadResult:
            if task.file.path.endswith("004.safetensors"):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(task)

        def read_local(self, path: str, pictures: Sequence[str] = ()) -> Any:
            if path.endswith("005.safetensors"):
                raise RuntimeError("an error\nof ours")
            return super().read_local(path, pictures)

    tasks = tasks_of(loras)[:8]
    results = list(RayReadingEngine(tmp_path / "parts", "zoo").read_files(tasks, DeadlyReader(encoder)))
    assert [result.file for result in results] == [task.file for task in tasks]
    refused = {Path(result.file.path).name: result for result in results if result.refusal}
    assert list(refused) == ["004.safetensors", "005.safetensors"]
    assert not any(result.permanent for result in refused.values())  # the next run tries again
    assert "1 workers ended with it" in str(refused["004.safetensors"].refusal)
    assert "error of Loradex itself, RuntimeError: an error of ours" in str(refused["005.safetensors"].refusal)


@pytest.mark.usefixtures("cluster")
def test_the_reason_without_an_expert_comes_from_the_workers(tmp_path: Path, encoder: Encoder) -> None:
    folder, zoo = tmp_path / "loras", tmp_path / "zoo"
    folder.mkdir()
    write_files(folder)
    places = [folder, f"file://{folder}"]
    answer = index_places(places, zoo, encoder, engine=RayReadingEngine(tmp_path / "parts", str(zoo)))
    reasons = [(Path(path).name, str(reason)) for path, reason in answer.no_expert.items()]
    assert reasons == [*REASONS.items(), *REASONS.items()]
    assert answer.advice == ADVICE.replace("(1)", "(2)")
    by_threads = index_places(places, tmp_path / "local", encoder)
    assert replace(answer, zoo="") == replace(by_threads, zoo="")


def tasks_of(folder: Path) -> list[ReadTask]:
    return [
        ReadTask(KnownFile(path, size, mtime_ns)) for path, (size, mtime_ns) in FolderScan.of([folder]).files.items()
    ]


@pytest.mark.usefixtures("cluster", "small_batches")
def test_a_stopped_run_continues_from_its_parts(
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
        index_places(places, zoo, encoder, engine=RayReadingEngine(parts, str(zoo)))
    finished = sorted(parts.glob("part-*"))
    assert len(finished) == 2
    kept = pq.read_metadata(finished[1]).num_rows
    finished[0].write_bytes(finished[0].read_bytes()[:-1])
    task_counts: list[int] = []
    run_pipeline = RayReadingEngine._run_pipeline
    monkeypatch.setattr(
        RayReadingEngine,
        "_run_pipeline",
        lambda self, tasks, reader: task_counts.append(len(tasks)) or run_pipeline(self, tasks, reader),
    )
    answer = index_places(places, zoo, encoder, engine=RayReadingEngine(parts, str(zoo)))
    assert task_counts == [answer.file_count - kept]
    assert_same_zoo((answer, zoo), by_threads)


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
def test_workers_use_all_cores_and_share_gpus(
    resources: dict[str, float], batches: int, expected: tuple[int, float]
) -> None:
    assert plan_workers(resources, batches) == expected


def test_a_reader_on_a_device_reads_the_same(encoder: Encoder, loras: Path) -> None:
    tasks = tasks_of(loras)[:2]
    for result, moved in zip(
        *([reader.read(task) for task in tasks] for reader in (FileReader(encoder), FileReader(encoder).to("cpu"))),
        strict=True,
    ):
        assert result.entry
        assert moved.entry
        assert result.entry.model == moved.entry.model
        (position,), (other,) = result.entry.positions.values(), moved.entry.positions.values()
        np.testing.assert_array_equal(position.vector, other.vector)
        assert (position.scale, position.bias) == (other.scale, other.bias)


def test_without_ray_the_error_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(
        sys, "argv", ["loradex", "index", str(tmp_path), "--zoo", str(tmp_path / "zoo"), "--engine", "ray"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 1
    assert error.count("\n") == 1
    assert error.strip().endswith("pip install 'loradex[ray]'")
    assert not (tmp_path / "zoo").exists()


def test_the_local_engine_imports_nothing_of_ray() -> None:
    modules = "loradex.app.commands.main, loradex.app.indexing.ingest, loradex.app.indexing.reading_engines"
    program = f"import sys, {modules}; sys.exit('ray' in sys.modules or 'loradex.app.indexing.ray.reading_engine' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_engine_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_reading_engine(EngineName.LOCAL, "zoo"), LocalReadingEngine)
    with pytest.raises(EngineError, match="expected --engine ray with them"):
        make_reading_engine(EngineName.LOCAL, "zoo", tmp_path)
    engine = make_reading_engine(EngineName.RAY, "zoo", address="127.0.0.1:1")
    assert isinstance(engine, RayReadingEngine)
    assert engine.folder.is_relative_to(user_cache_dir())
    assert engine.folder != make_reading_engine(EngineName.RAY, "another zoo").folder  # type: ignore[attr-defined]
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:2")
    assert make_reading_engine(EngineName.RAY, "zoo").address == "127.0.0.1:2"  # type: ignore[attr-defined]
    monkeypatch.setenv("RAY_ADDRESS", "local")  # with which Ray itself would start a cluster that other machines reach
    assert make_reading_engine(EngineName.RAY, "zoo").address is None  # type: ignore[attr-defined]


def test_an_unreachable_cluster(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RayReadingEngine(tmp_path / "parts", "zoo", "127.0.0.1:1")
    monkeypatch.setattr(engine.ray, "is_initialized", lambda: False)
    with pytest.raises(EngineError, match=r"expected the cluster at 127\.0\.0\.1:1 to work, found: .*--ray-address"):
        list(engine.read_files([ReadTask(KnownFile("a", 1, 1))], FileReader(encoder)))
