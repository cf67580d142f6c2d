"""Base models are found in the folders of other programs: links once, within bounds."""

from pathlib import Path

import pytest

from loradex.app.bases import search
from loradex.app.bases.search import Found, find_candidates, read_candidates
from loradex.retrieval.errors import FileMissing
from tests.retrieval.base_model.base_files import change_weight, write_checkpoint, write_folder


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "work"


def find(*places: Path) -> Found:
    return read_candidates(find_candidates(places))


def found_paths(found: Found) -> set[str]:
    return {str(base.path) for base in found.bases}


def test_the_usual_folders_and_the_hubs_cache(work: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = Path.home()
    snapshot = ".cache/huggingface/hub/models--a--b/snapshots/0123"
    expected = {
        write_checkpoint(home / "ComfyUI/models/checkpoints/deeper/a.safetensors", "sd1"),
        write_checkpoint(home / "apps/webui/models/Stable-diffusion/b.safetensors", "sd2"),
        write_checkpoint(home / "Stability Matrix/Data/Models/StableDiffusion/c.SAFETENSORS", "sdxl"),
        write_checkpoint(work / "models/checkpoints/d.safetensors", "sdxl-refiner"),
        write_folder(home / "ComfyUI/models/diffusers/e", "sd1"),
        change_weight(write_checkpoint(home / ".local/share/StabilityMatrix/Models/StableDiffusion/i.safetensors")),
        write_folder(home / snapshot, "sd2"),
    }
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    expected.add(write_folder(tmp_path / "hub/models--c--d/snapshots/4567", "sdxl"))
    write_checkpoint(home / "elsewhere/f.safetensors")
    write_checkpoint(home / ".hidden/models/checkpoints/g.safetensors")
    write_checkpoint(home / "ComfyUI/models/loras/h.safetensors")
    found = find()
    assert found_paths(found) == set(map(str, expected)) and found.complete
    assert [base.kind for base in found.bases] == ["file"] * 5 + ["folder"] * 3


def test_a_named_folder_is_searched_whole_unless_it_has_usual_ones(tmp_path: Path) -> None:
    plain = write_checkpoint(tmp_path / "disk/some/where/a.safetensors", "sd1")
    assert found_paths(find(tmp_path / "disk")) == {str(plain)}
    usual = write_checkpoint(tmp_path / "disk/models/checkpoints/b.safetensors", "sd2")
    assert found_paths(find(tmp_path / "disk")) == {str(usual)}
    with pytest.raises(FileMissing, match="expected a folder to look for base models in, found none"):
        find(tmp_path / "none")


def test_links_are_followed_once_and_copies_named(tmp_path: Path) -> None:
    checkpoints = Path.home() / "ComfyUI" / "models" / "checkpoints"
    path = write_checkpoint(tmp_path / "disk" / "a.safetensors")
    checkpoints.parent.mkdir(parents=True)
    checkpoints.symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "link.safetensors").symlink_to(path)
    copy = write_checkpoint(Path.home() / "webui" / "models" / "Stable-diffusion" / "copy.safetensors")
    found = find()
    first = str(checkpoints / "a.safetensors")
    assert found_paths(found) == {first}
    assert found.copies == {str(checkpoints / "link.safetensors"): first, str(copy): first}


def test_what_is_no_base_model_is_named(tmp_path: Path) -> None:
    folder = Path.home() / "models" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "old.ckpt").write_bytes(b"PK\x03\x04" + bytes(40))
    (folder / "page.safetensors").write_bytes(b"<html>")
    (folder / "broken.safetensors").symlink_to(tmp_path / "none")
    (folder / "notes.txt").write_text("")
    found = find()
    assert not found.bases and {Path(path).name for path in found.skipped} == {
        "old.ckpt",
        "page.safetensors",
        "broken.safetensors",
    }
    assert "could run code" in found.skipped[str(folder / "old.ckpt")]


def test_bounds_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path.home() / "models" / "checkpoints"
    for number in range(3):
        write_checkpoint(folder / f"{number}.safetensors", ("sd1", "sd2", "sdxl")[number])
    monkeypatch.setattr(search, "MAX_CANDIDATES", 2)
    found = find()
    assert len(found.bases) == 2 and not found.complete
    monkeypatch.setattr(search, "MAX_CANDIDATES", 3)
    for number in range(5):
        (Path.home() / "others" / f"{number}").mkdir(parents=True)
    monkeypatch.setattr(search, "MAX_FOLDERS", 5)
    found = find()
    assert len(found.bases) == 3 and not found.complete  # the nearest are found first
