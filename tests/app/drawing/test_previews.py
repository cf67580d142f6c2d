"""Drawing the models of a zoo that have no preview, and ``loradex draw``."""

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
from loradex.app.drawing.previews import draw_previews, models_without_preview
from loradex.app.drawing.renderer import Renderer
from loradex.app.indexing.ingest import index_places
from loradex.app.paths import SHIPPED_ZOO, encoder_folders
from loradex.index import Model, Zoo
from loradex.retrieval.encoder import Encoder
from tests.app.drawing.conftest import lora

DELETED = Model("b" * 20, "deleted", "mini-a", "/nowhere/deleted.safetensors")
REMOTE = Model("c" * 20, "remote", "mini-a", "hf://someone/remote/x.safetensors")
NO_BASE = Model("d" * 20, "no base", "sd1", "/nowhere/other.safetensors")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["draw", *map(str, arguments)])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(*encoder_folders())


@pytest.fixture
def zoo(tmp_path: Path, encoder: Encoder) -> Path:
    """A zoo of two LoRAs without previews, and of others that cannot be drawn."""
    for number, tree in enumerate(("mini-a", "mini-b")):
        (tmp_path / "loras").mkdir(exist_ok=True)
        shutil.copy(lora(tree), tmp_path / "loras" / f"{number}.safetensors")
    index_places([tmp_path / "loras"], tmp_path / "zoo", encoder)
    with Zoo.open(tmp_path / "zoo") as opened:
        opened.add([DELETED, REMOTE, NO_BASE], [None] * 3)
    return tmp_path / "zoo"


def test_models_get_previews_and_lose_nothing(zoo: Path, renderer: Renderer) -> None:
    with Zoo.open(zoo) as opened:
        before = {model.id: model for model in opened.models()}
        positions, fingerprints, files = (
            opened.positions_by_id(list(before)),
            opened.fingerprints(),
            opened.known_files(),
        )
        reasons = {
            result.model.id: result.reason
            for result in draw_previews(opened, renderer, models_without_preview(opened, renderer))
        }
        after = {model.id: model for model in opened.models()}
        remaining = [model.id for model in models_without_preview(opened, renderer)]
        assert not opened.verify()
        for id, placed in opened.positions_by_id(list(before)).items():
            for kind, position in placed.items():
                np.testing.assert_array_equal(position.vector, positions[id][kind].vector)
                assert (position.scale, position.bias) == (positions[id][kind].scale, positions[id][kind].bias)
        assert (opened.fingerprints(), opened.known_files()) == (fingerprints, files)
    drawn = {id for id, reason in reasons.items() if reason is None}
    assert len(drawn) == 2 and drawn == set(positions)
    assert reasons.keys() - drawn == set(remaining) == {DELETED.id, REMOTE.id}
    assert "No such file" in str(reasons[DELETED.id]) and "file on this machine" in str(reasons[REMOTE.id])
    assert after == {
        id: replace(model, preview=f"previews/{id}.png" if id in drawn else None) for id, model in before.items()
    }
    for id in drawn:
        drawing, shipped = (
            np.asarray(Image.open(folder / "previews" / f"{id}.png").convert("RGB")).astype(float)
            for folder in (zoo, SHIPPED_ZOO)
        )
        assert np.abs(drawing - shipped).mean() < 6


def test_a_replaced_file_is_not_drawn(zoo: Path, renderer: Renderer) -> None:
    shutil.copy(lora("mini-a", 1), zoo.parent / "loras" / "0.safetensors")
    with Zoo.open(zoo) as opened:
        models = [
            model for model in models_without_preview(opened, renderer) if str(model.path).endswith("0.safetensors")
        ]
        (result,) = draw_previews(opened, renderer, models)
    assert "index it again" in str(result.reason)


def test_drawing_previews_can_be_stopped(zoo: Path, renderer: Renderer) -> None:
    stop = threading.Event()
    with Zoo.open(zoo) as opened:
        models = [
            model for model in models_without_preview(opened, renderer) if model.id not in (DELETED.id, REMOTE.id)
        ]
        results = draw_previews(opened, renderer, models, stop)
        assert next(results).reason is None
        stop.set()
        assert list(results) == []
        assert len(models_without_preview(opened, renderer)) == 3


def test_the_command_draws_missing_previews(zoo: Path) -> None:
    result = run("--missing", "--zoo", zoo, "--json")
    assert result.exit_code == 3
    answer = json.loads(result.stdout)
    assert (answer["zoo"], len(answer["drawn"]), len(answer["refused"])) == (str(zoo), 2, 2)
    assert result.stderr.count("loradex: ") == 2


def test_the_command_draws_files_side_by_side(tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no model")
    result = run(lora("mini-a"), bad, lora("mini-b"), "--steps", 2, "--seed", 3, "--out", tmp_path / "made", "--json")
    assert result.exit_code == 3
    answer = json.loads(result.stdout)
    assert [result["family"] for result in answer["results"]] == ["mini-a", "mini-b"]
    assert [each["file"] for each in answer["refused"]] == [str(bad)]
    for document in answer["results"]:
        assert (document["seed"], document["steps"], document["prompt"], document["strength"]) == (3, 2, "an icon", 1.0)
        assert document["cached"] == {"without": False, "with": False}
        assert Path(document["picture"]).name.endswith(f"{document['id'][:8]}-without-with.png")
        with Image.open(document["picture"]) as both:
            assert both.size == (256, 128)
    single = run(lora("mini-a"), "--steps", 2, "--seed", 3, "--strength", 0, "--out", tmp_path / "one.png")
    assert single.exit_code == 0 and "mini-a" in single.stdout
    with Image.open(tmp_path / "one.png") as both, Image.open(answer["results"][0]["picture"]) as other:
        left, right = both.crop((0, 0, 128, 128)), both.crop((128, 0, 256, 128))
        assert left.tobytes() == right.tobytes() == other.crop((0, 0, 128, 128)).tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected files or --missing"),
        (("x.safetensors", "--missing"), "and not both"),
        (("x.safetensors", "y.safetensors", "--out", "z.png"), "name a folder"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
