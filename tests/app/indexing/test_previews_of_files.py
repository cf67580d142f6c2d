"""Files with pictures beside them: placed and searched by what the pictures show, whatever reads the weights."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from loradex.app.commands.main import app
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.ingest import index_places
from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.index import Evidence, Filter, Zoo
from loradex.index.base import ALL
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import LoraFile
from tests.app.describe.samples import write_lora
from tests.app.indexing.tiny_clip import save_encoder

CONCEPTS = ("brick", "window", "ferry", "raccoon")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINIATURE / "encoder")


@pytest.fixture(scope="module")
def shipped() -> dict[str, LoraFile]:
    """A shipped LoRA of each concept, which no expert saw in training."""
    files = map(LoraFile.open, sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors")))
    return {concept: file for file in files if (concept := file.header.metadata["class_name"]) in CONCEPTS}


@pytest.fixture(scope="module")
def drawings(shipped: dict[str, LoraFile]) -> dict[str, Path]:
    """What they draw, by concept."""
    return {concept: SHIPPED_ZOO / "previews" / f"{file.id}.png" for concept, file in shipped.items()}


@pytest.fixture
def loras(tmp_path: Path, drawings: dict[str, Path]) -> Path:
    """LoRAs of a family without an expert, under names that say nothing, with their drawings beside them."""
    folder = tmp_path / "loras"
    for number, concept in enumerate(CONCEPTS):
        write_different(folder / f"{number}.safetensors", number)
        shutil.copy(drawings[concept], folder / f"{number}.preview.png")
    return folder


def write_different(path: Path, number: int) -> None:
    """Write a LoRA whose weights depend on the number."""
    write_lora(path)
    save_file({name: tensor + number for name, tensor in load_file(path).items()}, path)


def best(zoo: Path, encoder: Encoder, text: str, where: Filter = ALL) -> tuple[str, Evidence]:
    """The name of the best hit for a text, and the evidence for it."""
    with Zoo.open(zoo, read_only=True) as opened:
        (hit, *_) = opened.search(encoder.encode_texts([text])[0].numpy(), 1, where)
        return hit.model.name, hit.found_by


def counts(answer: IndexAnswer) -> tuple[int, int, int, int]:
    """Files that an expert read, that previews place, that are known by metadata only, and unchanged ones."""
    return answer.by_weights, answer.by_preview, answer.by_metadata, answer.unchanged


def test_a_family_without_an_expert_is_searched_by_what_its_previews_show(
    loras: Path, tmp_path: Path, encoder: Encoder
) -> None:
    zoo = tmp_path / "zoo"
    answer = index_places([loras], zoo, encoder)
    assert counts(answer) == (0, 4, 0, 0)
    assert "are found by their previews, by names, tags" in str(answer.advice)
    for number, concept in enumerate(CONCEPTS):
        assert best(zoo, encoder, concept) == (str(number), Evidence.PREVIEW)
    assert best(zoo, encoder, "brick", Filter(found_by=(Evidence.PREVIEW,)))[0] == "0"
    with Zoo.open(zoo, read_only=True) as opened:
        assert opened.counts("found_by") == {"preview": 4}
        assert all(model.preview and (zoo / model.preview).is_file() for model in opened.models())
    assert counts(index_places([loras], zoo, encoder)) == (0, 0, 0, 4)


def test_in_any_space_a_picture_finds_the_model_that_it_lies_beside(loras: Path, tmp_path: Path) -> None:
    """With a CLIP that has random weights, and several pictures a model."""
    encoder, zoo = save_encoder(tmp_path / "encoder"), tmp_path / "zoo"
    for number, colour in enumerate(("red", "green", "blue", "black")):
        Image.new("RGB", (40, 30), colour).save(loras / f"{number}.preview.png")
        Image.linear_gradient("L").convert("RGB").save(loras / f"{number}.example.0.jpeg")
    answer = index_places([loras], zoo, encoder)
    assert counts(answer) == (0, 4, 0, 0)
    for number in range(4):
        pictures = [Image.open(loras / f"{number}{ending}") for ending in (".preview.png", ".example.0.jpeg")]
        mean = encoder.encode_pictures(pictures).mean(0).numpy()
        with Zoo.open(zoo, read_only=True) as opened:
            (hit,) = opened.search(mean, 1)
        assert hit.model.name == str(number)
        np.testing.assert_allclose(hit.vector, mean / np.linalg.norm(mean), atol=1e-4)
        assert hit.score == pytest.approx(1, abs=1e-4)


def test_weights_and_previews_stand_side_by_side(
    tmp_path: Path, encoder: Encoder, shipped: dict[str, LoraFile], drawings: dict[str, Path]
) -> None:
    """A LoRA of bricks with a picture of a window is found by both."""
    folder, zoo = tmp_path / "loras", tmp_path / "zoo"
    folder.mkdir()
    shutil.copy(shipped["brick"].path, folder / "x.safetensors")
    shutil.copy(drawings["window"], folder / "x.png")
    answer = index_places([folder], zoo, encoder)
    assert counts(answer) == (1, 1, 0, 0)
    assert best(zoo, encoder, "brick")[1] is Evidence.PICTURE
    assert best(zoo, encoder, "window")[1] is Evidence.PREVIEW
    assert answer.document()["understood"] == [
        {
            "file": str(folder / "x.safetensors"),
            "family": shipped["brick"].family,
            "found_by": "picture",
            "evidence": ["picture", "preview"],
            "reason": None,
        }
    ]


def test_new_changed_and_removed_pictures_are_noticed(
    loras: Path, tmp_path: Path, encoder: Encoder, drawings: dict[str, Path]
) -> None:
    zoo = tmp_path / "zoo"
    (loras / "3.preview.png").unlink()
    assert counts(index_places([loras], zoo, encoder)) == (0, 3, 1, 0)
    shutil.copy(drawings["raccoon"], loras / "3.png")
    assert counts(index_places([loras], zoo, encoder)) == (0, 1, 0, 3)
    assert best(zoo, encoder, "raccoon") == ("3", Evidence.PREVIEW)
    shutil.copy(drawings["window"], loras / "0.preview.png")
    (loras / "1.preview.png").unlink()
    os.utime(loras / "2.preview.png")
    answer = index_places([loras], zoo, encoder)
    assert (counts(answer), answer.updated) == ((0, 2, 1, 1), 3)
    assert best(zoo, encoder, "window")[0] == "0"
    with Zoo.open(zoo, read_only=True) as opened:
        assert opened.counts("found_by") == {"preview": 3, "metadata": 1}
    assert counts(index_places([loras], zoo, encoder)) == (0, 0, 0, 4)


def test_a_bad_picture_is_named_and_its_lora_indexed(
    loras: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORADEX_ENCODER", str(MINIATURE / "encoder"))
    (loras / "0.preview.png").write_text("<!DOCTYPE html>")
    (loras / "1.png").write_bytes((loras / "1.preview.png").read_bytes()[:200])
    arguments = ["index", str(loras), "--zoo", str(tmp_path / "zoo")]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["by_weights"], document["by_preview"], document["by_metadata"]) == (0, 3, 1)
    assert [Path(each["file"]).name for each in document["bad_pictures"]] == ["0.preview.png", "1.png"]
    assert (document["refused"], document["no_previews"]) == ([], None)
    table = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / "another")])
    text = " ".join(table.stdout.split())
    assert "bad pictures 2" in text
    assert "By metadata only: 0.safetensors." in text
    assert "By their previews, and by names: 1.safetensors, 2.safetensors, 3.safetensors." in text
    assert text.count("expected a picture in PNG, JPEG, WEBP, found none that can be read") == 2


def test_without_a_clip_indexing_goes_on_and_later_runs_place_the_pictures(loras: Path, tmp_path: Path) -> None:
    folder, zoo = tmp_path / "encoder", tmp_path / "zoo"
    save_encoder(folder)
    weights, aside = folder / "clip" / "open_clip_model.safetensors", tmp_path / "aside"
    weights.rename(aside)
    first = index_places([loras], zoo, Encoder.load(folder))
    assert counts(first) == (0, 0, 4, 0)
    assert "expected a CLIP that encodes pictures" in str(first.no_previews)
    with Zoo.open(zoo, read_only=True) as opened:
        assert all(model.preview for model in opened.models())  # the page shows them all the same
    again = index_places([loras], zoo, Encoder.load(folder))
    assert counts(again) == (0, 0, 0, 4)
    assert again.no_previews == first.no_previews
    aside.rename(weights)
    assert counts(index_places([loras], zoo, Encoder.load(folder))) == (0, 4, 0, 0)
    after = Encoder.load(folder)
    assert counts(index_places([loras], zoo, after)) == (0, 0, 0, 4)
    assert "text_encoder" not in after.__dict__  # nothing to place: CLIP is not loaded
