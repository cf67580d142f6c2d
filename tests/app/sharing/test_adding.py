"""Experts added to homes: equal vectors to the bit, everything that does not fit refused, nothing left half done."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from loradex.app.experts.expert_metrics import CLAIMED, load_metrics
from loradex.app.indexing.ingest import index_places
from loradex.app.paths import MINIATURE, user_encoder, user_zoo
from loradex.app.sharing.adding import add_expert
from loradex.app.sharing.exporting import export_expert
from loradex.app.sharing.removing import find_own, remove_expert
from loradex.app.sharing.shared_expert import SharedExpert
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import CheckpointError, FileMissing
from loradex.retrieval.space.embedding_space import Space
from tests.app.sharing.small_experts import ENCODER, of_other_space, put, small_expert

LORAS = sorted((MINIATURE / "models" / "mini-b").glob("test_holdout/*/*.safetensors"))[:8]
BY_CHILD = """
import sys
from pathlib import Path
import torch
from loradex.app.paths import user_encoder
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import LoraFile
expert = Encoder.load(user_encoder()).experts[sys.argv[1]]
vectors = [expert.encode_factors(expert.read_layers([LoraFile.open(path)]))[0] for path in sys.argv[2:]]
sys.stdout.write(torch.stack(vectors).numpy().tobytes().hex())
"""


def add(place: Path, **options: bool) -> str:
    return add_expert(str(place), user_encoder(), user_zoo(), **options).id


def refusal(place: Path, **options: bool) -> str:
    with pytest.raises(CheckpointError) as caught:
        add(place, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    small_expert().write(tmp_path / "b.safetensors")
    return tmp_path / "b.safetensors"


def home(path: Path) -> dict[str, str]:
    return {"HOME": str(path), "XDG_DATA_HOME": str(path / "data")}


def vectors_in(path: Path, tree: str) -> str:
    command = [sys.executable, "-c", BY_CHILD, tree, *map(str, LORAS)]
    return subprocess.run(command, env=os.environ | home(path), capture_output=True, text=True, check=True).stdout


def test_two_homes_have_the_same_vectors_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in home(tmp_path / "one").items():
        monkeypatch.setenv(name, value)
    put(small_expert("far", layers=30), user_encoder())
    exported = export_expert("far", tmp_path / "far.safetensors", [user_encoder()])
    for name, value in home(tmp_path / "two").items():
        monkeypatch.setenv(name, value)
    assert not user_encoder().exists()
    answer = add_expert(str(tmp_path / "far.safetensors"), user_encoder(), user_zoo())
    assert (answer.id, answer.new_encoder, answer.replaced, answer.text_encoder_here) == (exported.id, True, None, True)
    vectors = vectors_in(tmp_path / "one", "far")
    assert vectors == vectors_in(tmp_path / "two", "far") and len(vectors) == 2 * len(LORAS) * 256 * 4
    again = export_expert("far", tmp_path / "again.safetensors", [user_encoder()])
    assert again.id == exported.id
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "far.safetensors").read_bytes()
    texts = [Encoder.load(folder).encode_texts(["pizza"]) for folder in (user_encoder(), ENCODER)]
    assert torch.equal(*texts)


def test_an_added_expert_is_used_and_its_figures_are_a_claim(file: Path) -> None:
    answer = add_expert(str(file), user_encoder(), user_zoo())
    assert answer.path == str(user_encoder() / "experts" / "shared-b.safetensors")
    assert answer.next == ["loradex index FOLDER"] and answer.waiting == 0
    encoder = Encoder.load(user_encoder(), ENCODER)
    assert {"shared-b", "mini-a", "mini-b"} == set(encoder.experts)
    assert encoder.expert_files["shared-b"] == Path(answer.path)
    metrics = load_metrics(Path(answer.path))
    assert metrics is not None and metrics.measured_by == CLAIMED
    assert "nothing needs to be done" in refusal(file)


def test_what_waits_in_the_zoo_is_counted(tmp_path: Path, file: Path) -> None:
    encoder = Encoder.load(ENCODER)
    without = tmp_path / "without"
    shutil.copytree(ENCODER, without)
    (without / "experts" / "mini-b.safetensors").unlink()
    for number, path in enumerate(LORAS[:3]):
        (tmp_path / "loras").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "loras" / f"{number}.safetensors")
    index_places([tmp_path / "loras"], user_zoo(), Encoder.load(without))
    answer = add_expert(str(file), user_encoder(), user_zoo())
    assert answer.waiting == 3 and answer.next == [f"loradex index {tmp_path / 'loras'}"]
    assert encoder.space.name == answer.space


def test_an_expert_of_another_space_is_refused_with_the_command_that_changes_it(tmp_path: Path, file: Path) -> None:
    add(file)
    other = tmp_path / "other.safetensors"
    of_other_space().write(other)
    found = refusal(other)
    assert "expected an expert of the space in use, clip-c97d6726bfa5, found one of clip-256-abababababab" in found
    assert "`loradex space use ViT-B-32-quickgelu/openai` changes it" in found
    assert not list(user_encoder().rglob("*other*"))


def test_an_empty_home_takes_over_the_space_of_the_expert(tmp_path: Path, file: Path) -> None:
    of_other_space().write(tmp_path / "other.safetensors")
    answer = add_expert(str(tmp_path / "other.safetensors"), user_encoder(), user_zoo())
    assert answer.new_encoder and not answer.text_encoder_here
    assert answer.next == ["loradex space use ViT-B-32-quickgelu/openai", "loradex index FOLDER"]
    assert Space.load(user_encoder() / "space.safetensors").name == "clip-256-abababababab"
    assert "`loradex space use miniature` changes it" in refusal(file)


def test_a_tree_that_is_there_is_replaced_only_when_asked(tmp_path: Path, file: Path) -> None:
    first = add(file)
    changed = tmp_path / "changed.safetensors"
    small_expert(temperature=1.25).write(changed)
    assert f"another expert, {first}, is in" in refusal(changed) and "--replace puts this one" in refusal(changed)
    answer = add_expert(str(changed), user_encoder(), user_zoo(), replace=True)
    assert answer.replaced == first and answer.id != first
    assert Encoder.load(user_encoder()).experts["shared-b"].calibration.temperature == 1.25
    assert sorted(path.name for path in (user_encoder() / "experts").iterdir()) == [
        "shared-b.measured.json",
        "shared-b.safetensors",
    ]


def test_trees_that_ship_and_trees_of_classifiers_are_not_taken_by_accident(tmp_path: Path) -> None:
    small_expert(tree="mini-b").write(tmp_path / "b.safetensors")
    assert "--replace" in refusal(tmp_path / "b.safetensors")
    small_expert(tree="mini-vit").write(tmp_path / "vit.safetensors")
    assert "for classifiers" in refusal(tmp_path / "vit.safetensors", replace=True)
    assert not user_encoder().exists()


def test_other_files_in_the_place_of_the_encoder_stay(tmp_path: Path, file: Path) -> None:
    user_encoder().mkdir(parents=True)
    (user_encoder() / "notes.txt").write_text("mine")
    assert "expected an encoder" in refusal(file)
    assert [path.name for path in user_encoder().iterdir()] == ["notes.txt"]


def test_a_link_in_the_place_of_a_checkpoint_is_replaced_and_not_followed(tmp_path: Path, file: Path) -> None:
    add(file)
    checkpoint, target = user_encoder() / "experts" / "shared-b.safetensors", tmp_path / "target"
    target.write_bytes(b"mine")
    checkpoint.unlink()
    checkpoint.symlink_to(target)
    answer = add_expert(str(file), user_encoder(), user_zoo(), replace=True)
    assert answer.replaced == "damaged"
    assert target.read_bytes() == b"mine" and not checkpoint.is_symlink()


def test_removing_takes_only_ones_own(file: Path) -> None:
    add(file)
    with pytest.raises(CheckpointError, match="found shared-b; those that ship stay"):
        find_own("mini-a", user_encoder())
    for name in ("../../space", "nothing", ""):
        with pytest.raises(CheckpointError, match="expected an expert in"):
            find_own(name, user_encoder())
    answer = remove_expert(find_own("shared-b", user_encoder()))
    assert answer.left == 0 and not list((user_encoder() / "experts").iterdir())


def test_exporting_what_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found mini-a, mini-b"):
        export_expert("../mini-a", tmp_path / "a.safetensors", [ENCODER])
    with pytest.raises(CheckpointError, match="found one for classifiers"):
        export_expert("mini-vit", tmp_path / "a.safetensors", [ENCODER])
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    with pytest.raises(CheckpointError, match="expected no file, found one"):
        export_expert("mini-b", tmp_path / "a.safetensors", [ENCODER])
    answer = export_expert("mini-b", tmp_path, [ENCODER])
    assert answer.file == str(tmp_path / "mini-b.safetensors")
    assert json.loads(json.dumps(SharedExpert.read(Path(answer.file)).expert.settings))["base"] is None
    shutil.copytree(ENCODER, tmp_path / "local", ignore=shutil.ignore_patterns("clip", "categories", "ancestors"))
    space = Space.load(ENCODER / "space.safetensors")
    local = Space("local-dir:/home/me/clip", space.templates, space.centre, space.picture_centre)
    local.save(tmp_path / "local" / "space.safetensors")
    with pytest.raises(CheckpointError, match="make its space with `loradex space use`"):
        export_expert("mini-b", tmp_path / "local.safetensors", [tmp_path / "local"])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        add(tmp_path / "nothing.safetensors")
    assert "found none among 0 .safetensors files" in refusal(tmp_path)


FULL_DISK = """
import resource, sys
from loradex.app.commands.main import main
import loradex.app.sharing.adding, loradex.app.sharing.exporting
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_ends_in_one_line_and_leaves_nothing(tmp_path: Path, file: Path) -> None:
    def run(*arguments: object) -> str:
        command = [sys.executable, "-c", FULL_DISK, "expert", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and not done.stdout, done
        (line,) = done.stderr.splitlines()
        return line

    assert "expected a place to write to" in run("add", file)
    assert not user_encoder().exists() and not [path for path in user_encoder().parent.glob("**/*") if path.is_file()]
    add(file)
    before = {path: path.read_bytes() for path in user_encoder().rglob("*") if path.is_file()}
    small_expert("second").write(tmp_path / "second.safetensors")
    assert "expected a place to write to" in run("add", tmp_path / "second.safetensors")
    assert "expected a place to write to" in run("export", "shared-b", tmp_path / "out" / "b.safetensors")
    assert not list((tmp_path / "out").iterdir())
    assert before == {path: path.read_bytes() for path in user_encoder().rglob("*") if path.is_file()}
