"""Folders as people have them: links, loops, folders that may not be read, endings in capitals, odd names."""

import os
from pathlib import Path

import pytest

from loradex.retrieval.lora.weights_folder import WeightsFolder, find_weights


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def names(folder: Path, *more: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in WeightsFolder.of([folder, *more]).files]


def test_files_in_the_order_of_their_folders(tmp_path: Path) -> None:
    for name in (
        "b.safetensors",
        "A.SAFETENSORS",
        "sub/d.SafeTensors",
        "sub/c.safetensors",
        "a/z.safetensors",
        "n.txt",
    ):
        touch(tmp_path / name)
    for hidden in (".h.safetensors", ".cache/h.safetensors"):
        touch(tmp_path / hidden)
    touch(tmp_path / "folder.safetensors" / "inside.safetensors")
    found = ["A.SAFETENSORS", "b.safetensors", "a/z.safetensors", "folder.safetensors/inside.safetensors"]
    assert names(tmp_path) == [*found, "sub/c.safetensors", "sub/d.SafeTensors"]
    assert find_weights(tmp_path) == sorted(tmp_path / name for name in names(tmp_path))


def test_links_are_followed_once(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    touch(root / "real" / "a.safetensors")
    touch(elsewhere / "deep" / "b.safetensors")
    lone = touch(tmp_path / "lone" / "c.safetensors")
    (root / "a link to real").symlink_to(root / "real")
    (root / "linked").symlink_to(elsewhere)
    (root / "linked again").symlink_to(elsewhere / "deep")
    (root / "real" / "loop").symlink_to(root)
    (elsewhere / "back").symlink_to(root / "real")
    (elsewhere / "self").symlink_to(elsewhere)
    for link, target in {"1.safetensors": elsewhere / "deep" / "b.safetensors", "2.safetensors": lone}.items():
        (root / link).symlink_to(target)
    (root / "3.safetensors").symlink_to(lone)
    assert names(root) == ["real/a.safetensors", "linked/deep/b.safetensors", "2.safetensors"]
    assert names(root, elsewhere)[:2] == ["real/a.safetensors", "../elsewhere/deep/b.safetensors"]
    assert names(root, root / "real", root / "linked") == names(root)
    assert names(root / "linked") == ["deep/b.safetensors", "back/a.safetensors", "back/loop/2.safetensors"]
    assert WeightsFolder.of([root]).refused == {}


def test_links_that_lead_nowhere_or_around_the_folder_are_named(tmp_path: Path) -> None:
    root = tmp_path / "around" / "root"
    touch(root / "a.safetensors")
    touch(tmp_path / "around" / "other.safetensors")
    for link, target in {
        "drive": "absent", "v1.5": "absent", "notes.txt": "absent", "x.safetensors": "absent", "round": "round", "up": ".."
    }.items():  # fmt: skip
        (root / link).symlink_to(target)
    found = WeightsFolder.of([root])
    assert [Path(path).name for path in found.files] == ["a.safetensors", "x.safetensors"]  # which gives its own reason
    assert {Path(path).name for path in found.refused} == {"drive", "v1.5", "round", "up"}
    for path, reason in found.refused.items():
        assert reason.startswith(f"{path}: cannot be read: ") and "\n" not in reason


def test_a_folder_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "locked", "z"):
        touch(tmp_path / name / "x.safetensors")
    locked, scandir = str(tmp_path / "locked"), os.scandir

    def deny(path: str) -> object:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    found = WeightsFolder.of([tmp_path])
    assert [os.path.relpath(path, tmp_path) for path in found.files] == ["a/x.safetensors", "z/x.safetensors"]
    assert list(found.refused) == [locked]
    assert "Permission denied" in found.refused[locked]
    assert len(find_weights(tmp_path)) == 2
    assert [record.getMessage() for record in caplog.records] == [found.refused[locked]]


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode")
def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/d\xe9j\xe0"
    Path(os.fsdecode(folder)).mkdir()
    with open(folder + b"/caf\xe9.safetensors", "wb"):
        pass
    (path,) = WeightsFolder.of([tmp_path]).files
    assert os.fsencode(path) == folder + b"/caf\xe9.safetensors"
    assert Path(path).is_file()
