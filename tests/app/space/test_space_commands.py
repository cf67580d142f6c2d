"""``loradex space``: choosing a CLIP, from the disk and from a hub; showing it; a zoo of another space made again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loradex.app.commands.main import app
from loradex.app.paths import MINIATURE, encoder_folders, user_encoder, user_zoo
from loradex.app.space.choice import new_folder_beside
from loradex.app.space.reindex import DONE, remote_places
from loradex.index import Zoo, open_zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.space.labels import LabelList
from tests.app.describe.samples import write_lora
from tests.tiny_clip import save_tiny_clip, serve_clip

SHIPPED = sorted(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))[:2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def document(*arguments: object) -> dict[str, object]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output + str(done.exception)
    parsed: dict[str, object] = json.loads(done.stdout)
    return parsed


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def made_encoder(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder folder as ``loradex space use`` makes it of the tiny CLIP."""
    folder = tmp_path_factory.mktemp("made") / "encoder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORADEX_ENCODER", str(folder))
        used = document("space", "use", clip_folder)
    assert used["changed"] and used["set_aside"] is None
    return folder


@pytest.fixture
def own_encoder(made_encoder: Path) -> Path:
    """The same as the person's own encoder."""
    shutil.copytree(made_encoder, user_encoder())
    return user_encoder()


def lora_folder(folder: Path) -> Path:
    for path in SHIPPED:
        (folder / path.parent.name).mkdir(parents=True)
        shutil.copy(path, folder / path.parent.name / f"{path.parent.name}.safetensors")
    write_lora(folder / "other.safetensors")
    return folder


def test_the_space_of_a_folder_is_used_by_all_commands(own_encoder: Path, tmp_path: Path) -> None:
    shown = document("space", "show")
    assert str(shown["space"]).startswith("clip-16-") and shown["dim"] == 16
    assert shown["text_encoder"] == "local-dir:clip" and shown["experts"] == [] and shown["zoo"] is None
    assert str(own_encoder / "clip" / "open_clip_model.safetensors") in dict(shown["files"])  # type: ignore[call-overload]
    assert "clip-16-" in run("space", "show").stdout
    write_lora(tmp_path / "loras" / "dog.safetensors")
    document("index", tmp_path / "loras")
    assert document("search", "dog")["space"] == shown["space"]
    assert document("space", "show")["zoo"] == {
        "zoo": str(user_zoo()), "space": shown["space"], "models": 1, "fits": True,
    }  # fmt: skip


def test_the_same_clip_is_not_made_twice_and_another_is_put_aside_with_its_experts(
    own_encoder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    first = Encoder.load(own_encoder).space.name
    (own_encoder / "experts").mkdir()
    (own_encoder / "experts" / "note.txt").write_text("of the first space")
    assert document("space", "use", clip_folder)["changed"] is False
    second = document("space", "use", save_tiny_clip(tmp_path / "second", seed=1))
    assert second["set_aside"] == f"{own_encoder}-{first}" and second["space"] != first
    back = document("space", "use", f"local-dir:{clip_folder}")
    assert back["restored"] and back["space"] == first
    assert (own_encoder / "experts" / "note.txt").read_text() == "of the first space"
    assert document("space", "use", "miniature")["set_aside"] == f"{own_encoder}-{first}"
    assert encoder_folders() == [MINIATURE / "encoder"]
    assert not [path for path in own_encoder.parent.iterdir() if path.name.startswith(".")]


def test_a_broken_encoder_is_mended_in_use_and_put_aside(own_encoder: Path, clip_folder: Path) -> None:
    labels = LabelList.load(own_encoder / "labels.safetensors")
    own = LabelList(labels.names[:2], labels.vectors[:2])
    own.save(own_encoder / "labels.safetensors")
    (own_encoder / "clip" / "open_clip_model.safetensors").write_bytes(b"")
    assert document("space", "use", clip_folder)["changed"] is False
    encoder = Encoder.load(own_encoder)
    assert encoder.encode_texts(["dog"]).shape == (1, 16)
    assert encoder.default_labels.names == own.names
    document("space", "use", "miniature")
    aside = own_encoder.with_name(f"{own_encoder.name}-{encoder.space.name}")
    shutil.rmtree(aside / "clip")
    (aside / "labels.safetensors").unlink()
    assert document("space", "use", clip_folder)["restored"]
    encoder = Encoder.load(own_encoder)
    assert encoder.encode_texts(["dog"]).shape == (1, 16)
    assert encoder.default_labels.names == labels.names


def test_what_a_killed_run_left_is_removed_and_what_another_run_makes_is_not(
    own_encoder: Path, clip_folder: Path
) -> None:
    with new_folder_beside(own_encoder) as new:
        killed = own_encoder.parent / f".{own_encoder.name}-0123abcd.part"
        shutil.copytree(clip_folder, killed / "encoder" / "clip")
        document("space", "use", clip_folder)
        assert not killed.exists() and new.is_dir()
    assert not [path for path in own_encoder.parent.iterdir() if path.name.startswith(".")]


def test_the_encoder_may_be_the_working_folder(
    own_encoder: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_encoder)
    monkeypatch.setenv("LORADEX_ENCODER", ".")
    assert document("space", "use", clip_folder)["folder"] == str(own_encoder)
    set_aside = document("space", "use", "miniature")["set_aside"]
    assert str(set_aside).startswith(f"{own_encoder}-clip-16-") and Path(str(set_aside)).is_dir()


def test_a_folder_with_other_files_is_left_alone(clip_folder: Path) -> None:
    user_encoder().mkdir(parents=True)
    (user_encoder() / "letter.txt").write_text("dear")
    refused = run("space", "use", clip_folder)
    assert "expected an encoder (with space.safetensors) or nothing" in str(refused.exception)
    assert [path.name for path in user_encoder().iterdir()] == ["letter.txt"]


def test_nothing_is_downloaded_without_consent_and_all_works_offline_afterwards(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_clip(clip_folder, "owner/tiny", tmp_path / "cache", monkeypatch) as hub:
        refused = run("space", "use", "hf-hub:owner/tiny")
        message = str(refused.exception)
        assert (
            " MB from " in message and "`loradex space use hf-hub:owner/tiny --yes`" in message and "\n" not in message
        )
        assert hub.requests == ["GET /api/models/owner/tiny"] and not user_encoder().exists()
        used = document("space", "use", "hf-hub:owner/tiny", "--yes")
        assert used["downloaded"] == sum(path.stat().st_size for path in clip_folder.iterdir())
        requests = len(hub.requests)
        encoder = Encoder.load(user_encoder())
        assert encoder.space.text_encoder == "hf-hub:owner/tiny"
        encoder.encode_texts(["a dog"])
        assert document("space", "use", "hf-hub:owner/tiny")["downloaded"] == 0  # from the cache
        assert len(hub.requests) == requests
    shutil.rmtree(tmp_path / "cache")
    assert Encoder.load(user_encoder()).encode_texts(["a cat"]).shape == (1, 16)


def test_the_name_is_the_same_from_a_folder_and_from_a_hub(
    made_encoder: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_clip(clip_folder, "owner/tiny", tmp_path / "cache", monkeypatch):
        assert document("space", "use", "hf-hub:owner/tiny", "--yes")["space"] == Encoder.load(made_encoder).space.name


def test_a_zoo_is_made_again_from_its_files(made_encoder: Path, tmp_path: Path) -> None:
    folder = lora_folder(tmp_path / "loras")
    document("index", folder)
    with open_zoo(user_zoo(), read_only=True) as zoo:
        old_space, ids = zoo.space, {model.id for model in zoo.models()}
        with_drawing = next(model.id for model in zoo.models() if model.name != "other")
    (user_zoo() / "previews").mkdir(exist_ok=True)
    shutil.copy(next((MINIATURE / "zoo" / "previews").iterdir()), user_zoo() / "previews" / f"{with_drawing}.png")
    shutil.copytree(made_encoder, user_encoder())
    space = Encoder.load(made_encoder).space.name
    assert "expected space" in str(run("search", "dog").exception)

    done = document("space", "reindex")
    assert (done["space"], done["old_space"], done["models"], done["lost"]) == (space, old_space, 3, [])
    with open_zoo(user_zoo(), space=space, read_only=True) as zoo:
        assert {model.id for model in zoo.models()} == ids
        assert zoo.get(with_drawing).preview == f"previews/{with_drawing}.png"
    with open_zoo(Path(str(done["old_zoo"])), read_only=True) as zoo:
        assert (zoo.space, len(zoo)) == (old_space, 3)
    assert document("space", "reindex")["old_zoo"] is None  # nothing left to do
    assert "nothing was done" in run("space", "reindex").stdout


def test_models_keep_their_times_and_a_space_may_have_any_name(made_encoder: Path, tmp_path: Path) -> None:
    """A name that is no name of a folder, though the old zoo is kept by it."""
    folder = lora_folder(tmp_path / "loras")
    document("index", folder, "--zoo", tmp_path / "source")
    with (
        open_zoo(tmp_path / "source", read_only=True) as source,
        Zoo.create(user_zoo(), "a/b\nc" + "d" * 300, 8) as old,
    ):
        models = [replace(model, added=1_600_000_000 + number) for number, model in enumerate(source.models())]
        old.add(models, [None] * len(models))
        old.note_files(source.known_files().values())
    shutil.copytree(made_encoder, user_encoder())
    done = document("space", "reindex")
    assert Path(str(done["old_zoo"])).name == ("zoo.a_b_c" + "d" * 300)[:84]
    with open_zoo(user_zoo(), read_only=True) as zoo:
        assert {model.id: model.added for model in zoo.models()} == {model.id: model.added for model in models}
    assert not (user_zoo() / DONE).exists()


def test_files_that_are_gone_are_named_and_nothing_is_lost(made_encoder: Path, tmp_path: Path) -> None:
    folder = lora_folder(tmp_path / "loras")
    document("index", folder)
    shutil.copytree(made_encoder, user_encoder())
    (folder / "other.safetensors").unlink()
    partly = run("space", "reindex")
    assert partly.exit_code == 3
    assert str(folder / "other.safetensors") in partly.stderr and "model 'other' is left out" in partly.stderr
    (old,) = user_zoo().parent.glob("zoo.clip-*")
    with open_zoo(old, read_only=True) as zoo:
        assert len(zoo) == 3

    # a run that was stopped between its renames is ended by the next
    user_zoo().rename(user_zoo().with_name("zoo.reindexed"))
    assert "expected a zoo" in str(run("space", "reindex").exception)  # it may not be whole
    (user_zoo().with_name("zoo.reindexed") / DONE).touch()
    assert document("space", "reindex")["models"] == 2
    shutil.rmtree(folder)
    document("space", "use", "miniature")
    assert "found none of 2" in str(run("space", "reindex").exception)
    with open_zoo(user_zoo(), read_only=True) as zoo:
        assert len(zoo) == 2


def test_a_stopped_run_goes_on_and_one_for_yet_another_space_begins_anew(made_encoder: Path, tmp_path: Path) -> None:
    document("index", lora_folder(tmp_path / "loras"))
    new = user_zoo().with_name("zoo.reindexed")
    shutil.copytree(user_zoo(), new)  # of the old space
    shutil.copytree(made_encoder, user_encoder())
    assert document("space", "reindex")["models"] == 3
    assert not new.exists()


def test_the_shipped_zoo_is_not_made_again(own_encoder: Path) -> None:
    assert "expected a zoo of your own" in str(run("space", "reindex", "--zoo", MINIATURE / "zoo").exception)


def test_remote_files_are_read_from_their_repository_or_folder_again() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    paths = [
        f"hf://owner/name@{commit}/a.safetensors",
        f"hf://owner/name@{commit}/deep/b.safetensors",
        "s3://bucket/loras/a.safetensors",
        "s3://bucket/loras/deep/b.safetensors",
        "/local/c.safetensors",
    ]
    assert remote_places(paths) == [f"hf://owner/name@{commit}", "s3://bucket/loras"]


def test_labels_come_from_the_persons_own_encoder() -> None:
    shutil.copytree(MINIATURE / "encoder", user_encoder())
    labels = Encoder.load(user_encoder()).default_labels
    own = LabelList(labels.names[:2], labels.vectors[:2])
    own.save(user_encoder() / "labels.safetensors")
    (answer,) = document("label", SHIPPED[0], "-k", 5)["results"]  # type: ignore[misc]
    assert {label["label"] for label in answer["labels"]} == set(own.names)
    described = document("describe", SHIPPED[0], "--dry-run")["files"]
    labels.save(user_encoder() / "labels.safetensors")
    assert document("describe", SHIPPED[0], "--dry-run")["files"] != described


def test_without_experts_of_ones_own_the_shipped_ones_label(own_encoder: Path) -> None:
    with_own = document("label", SHIPPED[0])["results"]
    document("space", "use", "miniature")
    assert document("label", SHIPPED[0])["results"] == with_own
