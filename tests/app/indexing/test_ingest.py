"""Indexing folders and repositories: what is read, what is not read again, what moved, what is reported."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import loradex.app.indexing.local_reading_engine
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.file_reader import FileReader, ReadResult, ReadTask
from loradex.app.indexing.folder_scan import FolderScan
from loradex.app.indexing.ingest import index_places
from loradex.app.indexing.watch import index_on_changes
from loradex.app.paths import MINIATURE
from loradex.app.search.service import Loradex
from loradex.index import Evidence, Zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileMissing
from loradex.retrieval.lora import LoraFile
from tests.few_words import LORADEX
from tests.hub import Hub, serve

SHIPPED = sorted(MINIATURE.glob("models/mini-*/test_holdout/*/*.safetensors"))[::40][:5]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINIATURE / "encoder")


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    """Four LoRAs in two folders, a copy, a link to the folder itself, and files that are not LoRAs."""
    folder = tmp_path / "loras"
    for number, path in enumerate(SHIPPED[:4]):
        target = folder / f"set {number % 2}" / f"lora {number}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(SHIPPED[0], folder / "copy.SAFETENSORS")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / ".hidden.safetensors").write_bytes(b"")
    (folder / "notes.txt").write_text("no LoRA")
    return folder


def counts(answer: IndexAnswer) -> dict[str, int]:
    """The counts of an answer that are not zero."""
    names = ("by_weights", "by_metadata", "unchanged", "added", "updated", "moved", "copies", "removed")
    numbers = {name: getattr(answer, name) for name in names} | {
        "missing": len(answer.missing),
        "refused": len(answer.refused),
    }
    return {name: count for name, count in numbers.items() if count}


def test_each_file_is_read_once_and_not_again_while_unchanged(
    loras: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo, seen = tmp_path / "zoo", list[tuple[int, int]]()
    first = index_places([loras], zoo, encoder, lambda done, total, name: seen.append((done, total)))
    assert counts(first) == {"by_weights": 5, "added": 4, "copies": 1}
    assert seen[-1] == (5, 5)
    with Zoo.open(zoo, read_only=True) as opened:
        for path in SHIPPED[:4]:
            id = LoraFile.open(path).id
            np.testing.assert_allclose(
                opened.vector(id), encoder.encode_file(encoder.router.open(path)).numpy(), atol=1e-6
            )
            stored = opened.get(id).facts["labels"]
            (answer,) = Loradex(zoo, encoder.folder).label([str(path)], k=3)
            assert stored == [
                [label.label, pytest.approx(label.probability, abs=1e-3)]
                for label in answer.labels
                if label.probability >= 0.05
            ]
        assert sorted(
            len(files) for files in opened.files_by_model([model.id for model in opened.models()]).values()
        ) == [
            1,
            1,
            1,
            2,
        ]
    monkeypatch.setattr(Encoder, "encode_file", lambda *_: pytest.fail("an unchanged file was read again"))
    assert counts(index_places([str(loras), loras / "set 0"], zoo, encoder)) == {"unchanged": 5}


def test_an_unchanged_file_costs_one_stat(
    loras: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_places([loras], tmp_path / "zoo", encoder)
    calls: list[str] = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **rest: calls.append(str(path)) or stat(path, **rest))
    index_places([loras], tmp_path / "zoo", encoder)
    assert sorted(
        path for path in calls if path.lower().endswith(".safetensors") and Path(path).is_relative_to(loras)
    ) == sorted(FolderScan.of([loras]).files)


def test_moved_changed_copied_and_missing_files(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    zoo = tmp_path / "zoo"
    index_places([loras], zoo, encoder)
    (loras / "set 1" / "lora 1.safetensors").rename(loras / "renamed.safetensors")
    shutil.copy(SHIPPED[4], loras / "set 0" / "lora 2.safetensors")  # replaced by another LoRA
    os.utime(loras / "set 1" / "lora 3.safetensors")
    answer = index_places([loras], zoo, encoder)
    assert counts(answer) == {"by_weights": 3, "unchanged": 2, "added": 1, "moved": 1, "updated": 1}
    with Zoo.open(zoo, read_only=True) as opened:
        assert len(opened) == 5  # the replaced LoRA stays in the zoo
        assert opened.get(LoraFile.open(SHIPPED[1]).id).path == str(loras / "renamed.safetensors")
    (loras / "set 1" / "lora 3.safetensors").unlink()
    (loras / "copy.SAFETENSORS").unlink()
    assert counts(index_places([loras], zoo, encoder)) == {"unchanged": 3, "missing": 2}
    assert counts(index_places([loras], zoo, encoder, prune=True)) == {
        "unchanged": 3,
        "missing": 2,
        "removed": 2,
    }  # the copy's model has another file, the replaced LoRA has none
    with Zoo.open(zoo, read_only=True) as opened:
        assert not opened.has(LoraFile.open(SHIPPED[2]).id)
        assert not opened.has(LoraFile.open(SHIPPED[3]).id)
        assert opened.has(LoraFile.open(SHIPPED[0]).id)


def test_files_outside_the_indexed_folders_are_not_missing(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    zoo = tmp_path / "zoo"
    index_places([loras], zoo, encoder)
    shutil.rmtree(loras / "set 0")
    assert counts(index_places([loras / "set 1"], zoo, encoder, prune=True)) == {"unchanged": 2}
    shutil.rmtree(loras / "set 1")
    (loras / "set 1").mkdir()  # like the mount point of a drive that is not connected
    with pytest.raises(FileMissing, match="found none"):
        index_places([loras / "set 1"], zoo, encoder, prune=True)


def test_bad_files_are_refused_and_read_again_when_they_change(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    (loras / "half.safetensors").write_bytes(SHIPPED[4].read_bytes()[:1000])
    (loras / "page.safetensors").write_text("<!DOCTYPE html>")
    (loras / "nowhere.safetensors").symlink_to(loras / "absent")
    odd = os.fsencode(loras) + b"/caf\xe9.safetensors"
    with open(odd, "wb") as file:
        file.write(SHIPPED[4].read_bytes())
    zoo = tmp_path / "zoo"
    answer = index_places([loras], zoo, encoder)
    assert counts(answer) == {"by_weights": 6, "added": 5, "copies": 1, "refused": 3}
    assert all("\n" not in reason and name in reason for name, reason in answer.refused.items())
    assert counts(index_places([loras], zoo, encoder)) == {"unchanged": 6, "refused": 3}
    shutil.copy(SHIPPED[4], loras / "half.safetensors")
    assert counts(index_places([loras], zoo, encoder)) == {"by_weights": 1, "unchanged": 6, "copies": 1, "refused": 2}


def test_links_to_folders_are_indexed_once_and_forgotten_with_the_link(
    loras: Path, tmp_path: Path, encoder: Encoder
) -> None:
    zoo, drive = tmp_path / "zoo", tmp_path / "drive"
    (drive / "deep").mkdir(parents=True)
    shutil.copy(SHIPPED[4], drive / "deep" / "far.safetensors")
    for link in ("linked", "linked again"):
        (loras / link).symlink_to(drive)
    (loras / "file.safetensors").symlink_to(drive / "deep" / "far.safetensors")
    far = str(loras / "linked" / "deep" / "far.safetensors")
    assert counts(index_places([loras], zoo, encoder)) == {"by_weights": 6, "added": 5, "copies": 1}
    with Zoo.open(zoo, read_only=True) as opened:
        assert [path for path in opened.known_files() if "far" in path or "file" in path] == [far]
    drive.rename(tmp_path / "unplugged")  # links that lead nowhere are refused, and what was below them is kept
    answer = index_places([loras], zoo, encoder, prune=True)
    assert counts(answer) == {"unchanged": 5, "refused": 3}
    (tmp_path / "unplugged").rename(drive)
    (loras / "linked").unlink()
    answer = index_places([loras], zoo, encoder, prune=True)
    assert counts(answer) == {"by_weights": 1, "unchanged": 5, "moved": 1}
    (loras / "linked again").unlink()
    (loras / "file.safetensors").unlink()
    answer = index_places([loras], zoo, encoder, prune=True)
    assert counts(answer) == {"unchanged": 5, "missing": 1, "removed": 1}


def test_a_file_that_may_not_be_read_is_tried_again(
    loras: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of its access rights changes neither its size nor its time."""
    locked, open_file = str(loras / "set 0" / "lora 0.safetensors"), os.open

    def deny(path: object, *rest: int) -> int:
        if str(path) == locked:
            raise PermissionError(13, "Permission denied")
        return open_file(path, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", deny)
        assert list(index_places([loras], tmp_path / "zoo", encoder).refused) == [locked]
    assert counts(index_places([loras], tmp_path / "zoo", encoder)) == {"by_weights": 1, "unchanged": 4, "copies": 1}


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="everyone may read everything")
def test_a_folder_that_may_not_be_read_is_refused(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    (loras / "set 0").chmod(0)
    answer = index_places([loras], tmp_path / "zoo", encoder)
    (loras / "set 0").chmod(0o755)
    assert list(answer.refused) == [str(loras / "set 0")]


def test_a_new_expert_reads_all_files_again(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    zoo, folder = tmp_path / "zoo", shutil.copytree(MINIATURE / "encoder", tmp_path / "encoder")
    (folder / "experts" / "mini-a.safetensors").unlink()
    before = index_places([loras], zoo, Encoder.load(folder))
    assert counts(before) == {"by_metadata": 5, "added": 4, "copies": 1}
    after = index_places([loras], zoo, encoder)
    assert counts(after) == {"by_weights": 5, "updated": 4, "copies": 1}
    with Zoo.open(zoo, read_only=True) as opened:
        assert opened.counts("found_by") == {"picture": 4}


def test_killed_runs_continue(tmp_path: Path, encoder: Encoder) -> None:
    """A run that is killed again and again reads each file once, and ends with the same zoo."""
    folder, zoo = tmp_path / "loras", tmp_path / "zoo"
    folder.mkdir()
    tensors = load_file(SHIPPED[0])
    for number in range(150):
        save_file(
            {name: tensor * (1 + number) for name, tensor in tensors.items()}, folder / f"{number:03}.safetensors"
        )
    command = [*LORADEX, "index", str(folder), "--zoo", str(zoo)]
    known = 0
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            until = time.monotonic() + 60
            while child.poll() is None and time.monotonic() < until and known_count(zoo) <= known:
                time.sleep(0.01)
            child.send_signal(signal.SIGKILL)
        assert known_count(zoo) >= known
        known = known_count(zoo)
    answer = index_places([folder], zoo, encoder)
    assert known > 0
    assert (answer.unchanged, answer.by_weights) == (known, 150 - known)
    with Zoo.open(zoo) as opened:
        assert len(opened) == 150
        assert opened.verify() == []


def known_count(zoo: Path) -> int:
    """The number of files that a zoo knows."""
    try:
        with Zoo.open(zoo, read_only=True) as opened:
            return len(opened.known_files())
    except Exception:
        return 0


def test_watching(loras: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """New, moved and removed files are noticed."""
    monkeypatch.setattr("loradex.app.indexing.watch.QUIET_MS", 50)
    zoo, stop = tmp_path / "zoo", threading.Event()
    index_places([loras], zoo, encoder)
    answers: list[IndexAnswer] = []

    def follow() -> None:
        answers.extend(index_on_changes([loras], lambda: index_places([loras], zoo, encoder, prune=True), stop))

    watcher = threading.Thread(target=follow)
    watcher.start()
    try:
        time.sleep(0.5)
        shutil.copy(SHIPPED[4], loras / "new.safetensors")
        wait_until(lambda: any(answer.added for answer in answers))
        (loras / "new.safetensors").rename(loras / "set 0" / "newer.safetensors")
        wait_until(lambda: any(answer.moved for answer in answers))
        (loras / "set 0" / "newer.safetensors").unlink()
        wait_until(lambda: any(answer.removed for answer in answers))
    finally:
        stop.set()
        watcher.join(30)
    assert not watcher.is_alive()


def wait_until(condition: object, seconds: float = 30) -> None:
    """Wait until a condition holds."""
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A repository of two LoRAs and a broken file."""
    made = Hub(tmp_path / "hub", "someone/loras", ("main",))
    made.folder.mkdir(parents=True)
    for number, path in enumerate(SHIPPED[:2]):
        shutil.copy(path, made.folder / f"{number}.safetensors")
    (made.folder / "broken.safetensors").write_bytes(b"nonsense" * 4)
    with serve(made, monkeypatch):
        yield made


def test_a_repository_of_the_hub(hub: Hub, loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    """Indexed at a pinned commit, together with folders; unchanged files are not fetched again."""
    zoo = tmp_path / "zoo"
    answer = index_places(["hf://someone/loras", loras / "set 1"], zoo, encoder)
    assert counts(answer) == {"by_weights": 4, "added": 4, "refused": 1}
    with Zoo.open(zoo, read_only=True) as opened:
        remote = [model for model in opened.models() if str(model.path).startswith("hf://someone/loras@")]
        assert [model.found_by for model in remote] == [Evidence.PICTURE] * 2
        local = encoder.encode_file(encoder.router.open(SHIPPED[0])).numpy()
        assert max(float(opened.vector(model.id) @ local) for model in remote) > 1 - 1e-5
    hub.cdn_requests.clear()
    assert counts(index_places(["hf://someone/loras"], zoo, encoder)) == {"unchanged": 2, "refused": 1}
    assert hub.cdn_requests == []


def test_threads_read_in_parallel(
    loras: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loradex.app.indexing.local_reading_engine, "LOCAL_THREADS", 3)
    barrier = threading.Barrier(3, timeout=30)
    read = FileReader.read
    first_calls = iter(range(3))

    def read_together(self: FileReader, task: ReadTask) -> ReadResult:
        if next(first_calls, None) is not None:
            barrier.wait()
        return read(self, task)

    monkeypatch.setattr(FileReader, "read", read_together)
    assert counts(index_places([loras], tmp_path / "zoo", encoder))["by_weights"] == 5
