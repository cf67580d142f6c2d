"""What is sent is bounded by bytes and by files; the oldest goes first, and nothing stays when the server ends."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loradex.app.web.upload_folder import Uploads


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Uploads]]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    all: list[Uploads] = []

    def make(**bounds: float) -> Uploads:
        all.append(Uploads(**bounds))  # type: ignore[arg-type]
        return all[-1]

    yield make
    for uploads in all:
        uploads.remove()


def put(uploads: Uploads, name: str, size: int, age: float = 3600) -> Path:
    """A file as Gradio keeps it: in a folder of its own."""
    path = uploads.folder / name / "file"
    path.parent.mkdir()
    path.write_bytes(bytes(size))
    for each in (path, path.parent):
        os.utime(each, (time.time() - age,) * 2)
    return path


def test_the_folder_is_the_servers_own(made: Callable[..., Uploads]) -> None:
    one, other = made(), made()
    assert one.folder != other.folder and os.environ["GRADIO_TEMP_DIR"] == str(other.folder)
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700


def test_the_oldest_is_given_up_for_bytes(made: Callable[..., Uploads]) -> None:
    uploads = made(most_bytes=100)
    files = [put(uploads, name, 30, age) for name, age in (("b", 300), ("a", 900), ("c", 100))]
    assert uploads.make_room(10) and [file.exists() for file in files] == [True, True, True]
    assert uploads.make_room(40) and [file.exists() for file in files] == [True, False, True]
    assert uploads.make_room(100) and [file.exists() for file in files] == [False, False, False]
    assert not uploads.make_room(101)


def test_the_oldest_is_given_up_for_files(made: Callable[..., Uploads]) -> None:
    uploads = made(most_files=3)
    files = [put(uploads, str(number), 0, 1000 - number) for number in range(5)]
    assert uploads.make_room(1)
    assert [file.exists() for file in files] == [False, False, False, True, True]


def test_young_files_are_kept(made: Callable[..., Uploads]) -> None:
    uploads = made(most_bytes=100, young=60)
    young, old = put(uploads, "young", 60, 30), put(uploads, "old", 30, 90)
    assert not uploads.make_room(50)
    assert young.exists() and not old.exists()
    assert uploads.make_room(40) and young.exists()


def test_what_is_coming_counts(made: Callable[..., Uploads]) -> None:
    uploads = made(most_bytes=100)
    with uploads.coming(70):
        assert uploads.make_room(30) and not uploads.make_room(31)
    with pytest.raises(OSError), uploads.coming(70):
        raise OSError
    assert uploads.make_room(100)


def test_a_thousand_small_files_leave_no_folders(made: Callable[..., Uploads]) -> None:
    uploads = made(most_files=10)
    for number in range(1000):
        assert uploads.make_room(1)
        put(uploads, str(number), 1, 5000 - number)
        assert len(list(uploads.folder.iterdir())) <= 10
    assert [path.name for path in sorted(uploads.folder.iterdir(), key=lambda path: int(path.name))] == [
        str(number) for number in range(990, 1000)
    ]


def test_folders_that_were_emptied_go_when_they_are_old(made: Callable[..., Uploads]) -> None:
    uploads = made(young=60)
    for name, age in (("old", 90), ("young", 30)):
        file = put(uploads, name, 1)
        file.unlink()
        os.utime(file.parent, (time.time() - age,) * 2)
    kept = put(uploads, "full", 1)
    assert uploads.make_room(1) and kept.exists()
    assert {path.name for path in uploads.folder.iterdir()} == {"young", "full"}


def test_nothing_stays(made: Callable[..., Uploads], tmp_path: Path) -> None:
    uploads = made(most_bytes=1)
    (tmp_path / "far").write_bytes(b"kept")
    (uploads.folder / "link").symlink_to(tmp_path / "far")
    (uploads.folder / "loop").symlink_to(uploads.folder)
    uploads.make_room(1)
    uploads.remove()
    uploads.remove()
    assert not uploads.folder.exists() and (tmp_path / "far").read_bytes() == b"kept"
