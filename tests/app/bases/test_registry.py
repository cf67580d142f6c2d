"""The list of named base models: which one answers for a family, changes, other processes, damage."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loradex.app.bases import Bases, NoBase, RegistryError, registry
from loradex.app.bases.changes import add_bases, add_found, remove_bases
from loradex.app.bases.registry import read_registry, registry_file
from loradex.app.paths import CLIP, TREES
from loradex.index.lock import WriterLock
from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import QueryError
from tests.retrieval.base_model.base_files import change_weight, write_checkpoint, write_folder, write_tensors


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "one.safetensors", "sd1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "folder", "sd1")


def paths() -> list[str]:
    return [entry.path for entry in read_registry()]


def test_the_miniatures_bases_are_always_at_hand() -> None:
    bases = Bases.load()
    assert bases.families == ["mini-a", "mini-b"] and not registry_file().exists()
    for family in bases.families:
        base = bases.get(family)
        assert (base.family, base.path) == (family, TREES / family)
        encoder = base.parts["text_encoder"]
        assert (encoder.files, encoder.prefix, encoder.layout) == (
            (CLIP / "open_clip_model.safetensors",),
            "text.",
            "open_clip",
        )
    assert bases.get("mini-a").fingerprint != bases.get("mini-b").fingerprint
    assert bases.for_family("sd1") is None
    with pytest.raises(
        NoBase, match=r"found those of mini-a, mini-b; name one with `loradex base add PATH`, .*--find`"
    ):
        bases.get("sd1")
    with pytest.raises(NoBase, match="expected a known family, found unknown"):
        bases.get("unknown")


def test_the_last_added_answers_for_its_family(one: Path, folder: Path) -> None:
    added, refused = add_bases([one, folder])
    assert [entry.path for entry in added] == paths() == [str(one), str(folder)] and not refused
    assert Bases.load().get("sd1") == BaseModel.open(folder)
    add_bases([one])
    assert Bases.load().get("sd1") == BaseModel.open(one)
    assert paths() == [str(folder), str(one)]


def test_paths_become_absolute_and_links_replace_what_they_lead_to(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    add_bases([Path("one.safetensors")])
    assert paths() == [str(one)]
    link = tmp_path / "link.safetensors"
    link.symlink_to(one)
    add_bases([link])
    assert paths() == [str(link)]
    (tmp_path / "sub").mkdir()
    add_bases([Path("sub/../one.safetensors")])
    assert paths() == [str(one.resolve())]


def test_what_moved_or_changed_is_named_until_it_is_added_again(one: Path, tmp_path: Path) -> None:
    add_bases([one])
    moved = one.rename(tmp_path / "moved to.safetensors")
    with pytest.raises(NoBase, match=f"moved or deleted: {one}; `loradex base add NEWPATH`"):
        Bases.load().get("sd1")
    add_bases([moved])
    assert paths() == [str(moved)] and Bases.load().get("sd1").path == moved
    change_weight(moved)
    with pytest.raises(NoBase, match="has changed since it was added; `loradex base add '.*moved to.safetensors'`"):
        Bases.load().for_family("sd1")
    add_bases([moved])
    assert Bases.load().get("sd1").path == moved
    write_checkpoint(moved, "sd2")
    with pytest.raises(NoBase, match="has changed since it was added and is of family sd2 now"):
        Bases.load().get("sd1")
    moved.write_bytes(b"<html>")
    with pytest.raises(NoBase, match="base model of sd1: .* found a web page"):
        Bases.load().get("sd1")


def test_named_pairs_go_before_the_list(one: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_bases([one])
    monkeypatch.setenv("LORADEX_BASES", f"sd1={folder}")
    assert Bases.load().get("sd1").path == folder
    assert Bases.load([f"sd1={one}"]).get("sd1").path == one
    assert Bases.load([f"sdxl={one}"]).families == ["mini-a", "mini-b", "sd1", "sdxl"]
    with pytest.raises(NoBase, match="base model of sdxl: expected that family in .*, found sd1; name another"):
        Bases.load([f"sdxl={one}"]).get("sdxl")
    with pytest.raises(NoBase, match="base model of sd2: .*cannot be read"):
        Bases.load([f"sd2={one}.gone"]).get("sd2")
    with pytest.raises(QueryError, match="expected FAMILY=PATH"):
        Bases.load(["sd1"])


def test_what_is_refused_is_not_added(one: Path, tmp_path: Path) -> None:
    unknown = {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (3, 3)}
    unknown["cond_stage_model.transformer.text_model.final_layer_norm.weight"] = (8,)
    strange = write_tensors(tmp_path / "strange.safetensors", unknown)
    added, refused = add_bases([strange, one, tmp_path / "none"])
    assert [entry.path for entry in added] == [str(one)] == paths()
    assert (
        "of a family that Loradex knows" in refused[str(strange)]
        and "cannot be read" in refused[str(tmp_path / "none")]
    )


def test_what_is_found_never_becomes_the_default_of_a_family_that_has_one(
    one: Path, folder: Path, tmp_path: Path
) -> None:
    add_bases([one])
    xl = write_checkpoint(tmp_path / "xl.safetensors", "sdxl")
    found = [BaseModel.open(path) for path in (xl, folder, one)]
    assert [entry.path for entry in add_found(found)] == [str(xl), str(folder)]
    assert paths() == [str(xl), str(folder), str(one)] and add_found(found) == []
    moved = one.rename(tmp_path / "moved.safetensors")
    change_weight(xl)
    assert len(add_found([BaseModel.open(path) for path in (moved, xl)])) == 2
    assert paths() == [str(xl), str(folder), str(moved)]
    assert Bases.load().get("sdxl").path == xl and Bases.load().get("sd1").path == moved


def test_removing_by_path_and_by_family(one: Path, folder: Path, tmp_path: Path) -> None:
    xl = write_checkpoint(tmp_path / "xl.safetensors", "sdxl")
    add_bases([one, folder, xl])
    one.unlink()
    removed, unknown = remove_bases([str(one), "nothing"])
    assert ([entry.path for entry in removed], unknown) == ([str(one)], ["nothing"])
    removed, unknown = remove_bases(["sd1", "mini-a"])
    assert ([entry.path for entry in removed], unknown) == ([str(folder)], ["mini-a"])
    assert paths() == [str(xl)] and folder.exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"version": 1, "bases": [', "Expecting value"),
        ("", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ('{"version": 1, "bases": [{"path": "/a"}]}', "no base model: "),
        ('{"version": 1, "bases": {}}', "another document"),
        ('{"version": 2, "bases": []}', "version 2 of a later Loradex"),
        ('{"version": 1, "bases": [' + ",".join(["1"] * 1001) + "]}", "another document"),
        (" " * (4 * 2**20 + 1), "more than 4 MiB"),
    ],
    ids=["cut", "empty", "deep", "an entry", "no list", "later", "many", "long"],
)
def test_a_damaged_list_is_named_and_kept(text: str, found: str, one: Path) -> None:
    registry_file().parent.mkdir(parents=True)
    registry_file().write_text(text)
    for action in (Bases.load, lambda: add_bases([one]), lambda: remove_bases(["sd1"])):
        with pytest.raises(RegistryError, match=f"{registry_file()}: expected the list .*{found}.*; mend it") as caught:
            action()
        assert "\n" not in str(caught.value)
    assert registry_file().read_text() == text


def test_unknown_members_are_ignored_and_odd_names_kept(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "caf\udce9 \u202e.safetensors", "sd1")
    add_bases([path])
    document = json.loads(registry_file().read_text())
    document |= {"later": 1}
    document["bases"][0]["later"] = 1
    registry_file().write_text(json.dumps(document))
    assert Bases.load().get("sd1").path == path


ADD = (
    "import sys; from pathlib import Path; from loradex.app.bases.changes import add_bases;"
    "print('ready', flush=True); add_bases([Path(sys.argv[1])])"
)


def test_processes_that_add_at_the_same_time_lose_nothing(one: Path, tmp_path: Path) -> None:
    theirs, mine = (Path(shutil.copy(one, tmp_path / f"{number}.safetensors")) for number in range(2))
    lock = WriterLock(folder_of_registry())
    with subprocess.Popen([sys.executable, "-c", ADD, str(theirs)], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        time.sleep(0.3)
        assert process.poll() is None and not registry_file().exists()  # it waits
        lock.release()
        add_bases([mine])
        assert process.wait(60) == 0
    assert sorted(paths()) == sorted(map(str, (theirs, mine)))
    assert {path.name for path in registry_file().parent.iterdir()} == {"bases.json", "writer.lock"}


def folder_of_registry() -> Path:
    registry_file().parent.mkdir(parents=True, exist_ok=True)
    return registry_file().parent


def test_another_writer_that_does_not_end_and_a_folder_that_cannot_be_made(
    one: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry, "LOCK_TIMEOUT", 0.05)
    lock = WriterLock(folder_of_registry())
    with pytest.raises(RegistryError, match="found another process that writes it"):
        add_bases([one])
    lock.release()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(RegistryError, match="expected to write the list of base models, found .*Not a directory"):
        add_bases([one])
