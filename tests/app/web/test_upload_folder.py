"""Uploads are limited in bytes and in files; the oldest are deleted first, and all when the server ends."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loradex.app.web.upload_folder import UploadFolder


@pytest.fixture
def make_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., UploadFolder]]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    folders: list[UploadFolder] = []

    def make(**limits: float) -> UploadFolder:
        folders.append(UploadFolder(**limits))  # type: ignore[arg-type]
        return folders[-1]

    yield make
    for folder in folders:
        folder.remove()


def write_upload(uploads: UploadFolder, name: str, size: int, age: float = 3600) -> Path:
    """Write a file as Gradio stores it: in a folder of its own."""
    path = uploads.folder / name / "file"
    path.parent.mkdir()
    path.write_bytes(bytes(size))
    for changed in (path, path.parent):
        os.utime(changed, (time.time() - age,) * 2)
    return path


def test_each_server_has_its_own_folder(make_folder: Callable[..., UploadFolder]) -> None:
    first, second = make_folder(), make_folder()
    assert first.folder != second.folder and os.environ["GRADIO_TEMP_DIR"] == str(second.folder)
    assert stat.S_IMODE(first.folder.stat().st_mode) == 0o700


def test_the_oldest_are_deleted_for_bytes(make_folder: Callable[..., UploadFolder]) -> None:
    uploads = make_folder(max_bytes=100)
    files = [write_upload(uploads, name, 30, age) for name, age in (("b", 300), ("a", 900), ("c", 100))]
    assert uploads.make_room(10) and [file.exists() for file in files] == [True, True, True]
    assert uploads.make_room(40) and [file.exists() for file in files] == [True, False, True]
    assert uploads.make_room(100) and [file.exists() for file in files] == [False, False, False]
    assert not uploads.make_room(101)


def test_the_oldest_are_deleted_for_files(make_folder: Callable[..., UploadFolder]) -> None:
    uploads = make_folder(max_files=3)
    files = [write_upload(uploads, str(number), 0, 1000 - number) for number in range(5)]
    assert uploads.make_room(1)
    assert [file.exists() for file in files] == [False, False, False, True, True]


def test_young_files_are_kept(make_folder: Callable[..., UploadFolder]) -> None:
    uploads = make_folder(max_bytes=100, min_age=60)
    young, old = write_upload(uploads, "young", 60, 30), write_upload(uploads, "old", 30, 90)
    assert not uploads.make_room(50)
    assert young.exists() and not old.exists()
    assert uploads.make_room(40) and young.exists()


def test_incoming_bytes_count(make_folder: Callable[..., UploadFolder]) -> None:
    uploads = make_folder(max_bytes=100)
    with uploads.incoming(70):
        assert uploads.make_room(30) and not uploads.make_room(31)
    with pytest.raises(OSError), uploads.incoming(70):
        raise OSError
    assert uploads.make_room(100)


def test_a_thousand_small_files_leave_no_folders(make_folder: Callable[..., UploadFolder]) -> None:
    uploads = make_folder(max_files=10)
    for number in range(1000):
        assert uploads.make_room(1)
        write_upload(uploads, str(number), 1, 5000 - number)
        assert len(list(uploads.folder.iterdir())) <= 10
    assert [path.name for path in sorted(uploads.folder.iterdir(), key=lambda path: int(path.name))] == [
        str(number) for number in range(990, 1000)
    ]


def test_old_empty_folders_are_removed(make_folder: Callable[..., UploadFolder]) -> None:
    uploads = make_folder(min_age=60)
    for name, age in (("old", 90), ("young", 30)):
        file = write_upload(uploads, name, 1)
        file.unlink()
        os.utime(file.parent, (time.time() - age,) * 2)
    kept = write_upload(uploads, "full", 1)
    assert uploads.make_room(1) and kept.exists()
    assert {path.name for path in uploads.folder.iterdir()} == {"young", "full"}


def test_remove_deletes_everything_but_link_targets(make_folder: Callable[..., UploadFolder], tmp_path: Path) -> None:
    uploads = make_folder(max_bytes=1)
    (tmp_path / "far").write_bytes(b"kept")
    (uploads.folder / "link").symlink_to(tmp_path / "far")
    (uploads.folder / "loop").symlink_to(uploads.folder)
    uploads.make_room(1)
    uploads.remove()
    uploads.remove()
    assert not uploads.folder.exists() and (tmp_path / "far").read_bytes() == b"kept"
