"""Drawings for the models of a zoo that have none, and ``loradex draw`` as a person uses it."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from loradex.app.commands.main import app
from loradex.app.drawing.previews import draw_missing, undrawn
from loradex.app.drawing.renderer import Studio
from loradex.app.indexing.ingest import index_places
from loradex.app.paths import SHIPPED_ZOO, encoder_folders
from loradex.index import FoundBy, Model, Zoo
from loradex.retrieval.encoder import Encoder
from tests.app.drawing.conftest import lora

GONE = Model("b" * 20, "gone", "mini-a", FoundBy.METADATA, "/nowhere/gone.safetensors")
FAR = Model("c" * 20, "far", "mini-a", FoundBy.METADATA, "hf://someone/far/x.safetensors")
OTHER = Model("d" * 20, "other", "sd1", FoundBy.METADATA, "/nowhere/other.safetensors")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["draw", *map(str, arguments)])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(*encoder_folders())


@pytest.fixture
def zoo(tmp_path: Path, encoder: Encoder) -> Path:
    """A zoo of two LoRAs without drawings, and of others that cannot be drawn."""
    for number, tree in enumerate(("mini-a", "mini-b")):
        (tmp_path / "loras").mkdir(exist_ok=True)
        shutil.copy(lora(tree), tmp_path / "loras" / f"{number}.safetensors")
    index_places([tmp_path / "loras"], tmp_path / "zoo", encoder)
    with Zoo.open(tmp_path / "zoo") as opened:
        opened.add([GONE, FAR, OTHER], [None] * 3)
    return tmp_path / "zoo"


def test_those_without_a_drawing_get_one_and_lose_nothing(zoo: Path, studio: Studio) -> None:
    with Zoo.open(zoo) as opened:
        before = {model.id: model for model in opened.models()}
        vectors, prints, files = opened.vectors_of(list(before)), opened.fingerprints(), opened.known_files()
        outcomes = {
            outcome.model.id: outcome.reason for outcome in draw_missing(opened, studio, undrawn(opened, studio))
        }
        after = {model.id: model for model in opened.models()}
        left = [model.id for model in undrawn(opened, studio)]
        assert not opened.verify()
        for id, vector in opened.vectors_of(list(before)).items():
            np.testing.assert_array_equal(vector, vectors[id])
        assert (opened.fingerprints(), opened.known_files()) == (prints, files)
    drawn = {id for id, reason in outcomes.items() if reason is None}
    assert len(drawn) == 2 and drawn == set(vectors)
    assert outcomes.keys() - drawn == set(left) == {GONE.id, FAR.id}
    assert "No such file" in str(outcomes[GONE.id]) and "file on this machine" in str(outcomes[FAR.id])
    assert after == {
        id: replace(model, preview=f"previews/{id}.png" if id in drawn else None) for id, model in before.items()
    }
    for id in drawn:
        ours, theirs = (
            np.asarray(Image.open(place / "previews" / f"{id}.png").convert("RGB")).astype(float)
            for place in (zoo, SHIPPED_ZOO)
        )
        assert np.abs(ours - theirs).mean() < 6


def test_a_file_that_is_another_by_now_is_not_drawn(zoo: Path, studio: Studio) -> None:
    shutil.copy(lora("mini-a", 1), zoo.parent / "loras" / "0.safetensors")
    with Zoo.open(zoo) as opened:
        models = [model for model in undrawn(opened, studio) if str(model.path).endswith("0.safetensors")]
        (outcome,) = draw_missing(opened, studio, models)
    assert "index it again" in str(outcome.reason)


def test_it_can_be_stopped(zoo: Path, studio: Studio) -> None:
    stop = threading.Event()
    with Zoo.open(zoo) as opened:
        models = [model for model in undrawn(opened, studio) if model.id not in (GONE.id, FAR.id)]
        drawing = draw_missing(opened, studio, models, stop)
        assert next(drawing).reason is None
        stop.set()
        assert list(drawing) == []
        assert len(undrawn(opened, studio)) == 3


def test_the_command_draws_what_is_missing(zoo: Path) -> None:
    done = run("--missing", "--zoo", zoo, "--json")
    assert done.exit_code == 3
    answer = json.loads(done.stdout)
    assert (answer["zoo"], len(answer["drawn"]), len(answer["refused"])) == (str(zoo), 2, 2)
    assert done.stderr.count("loradex: ") == 2


def test_the_command_draws_files_side_by_side(tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no model")
    done = run(lora("mini-a"), bad, lora("mini-b"), "--steps", 2, "--seed", 3, "--out", tmp_path / "made", "--json")
    assert done.exit_code == 3
    answer = json.loads(done.stdout)
    assert [result["family"] for result in answer["results"]] == ["mini-a", "mini-b"]
    assert [each["file"] for each in answer["refused"]] == [str(bad)]
    for result in answer["results"]:
        assert (result["seed"], result["steps"], result["prompt"], result["strength"]) == (3, 2, "an icon", 1.0)
        assert result["cached"] == {"without": False, "with": False}
        assert Path(result["picture"]).name.endswith(f"{result['id'][:8]}-without-with.png")
        with Image.open(result["picture"]) as both:
            assert both.size == (256, 128)
    one = run(lora("mini-a"), "--steps", 2, "--seed", 3, "--strength", 0, "--out", tmp_path / "one.png")
    assert one.exit_code == 0 and "mini-a" in one.stdout
    with Image.open(tmp_path / "one.png") as both, Image.open(answer["results"][0]["picture"]) as other:
        left, right = both.crop((0, 0, 128, 128)), both.crop((128, 0, 256, 128))
        assert left.tobytes() == right.tobytes() == other.crop((0, 0, 128, 128)).tobytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected files or --missing"),
        (("x.safetensors", "--missing"), "and not both"),
        (("x.safetensors", "y.safetensors", "--out", "z.png"), "name a folder"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())
