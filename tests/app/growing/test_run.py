"""Growing an expert of the miniature from a short list of words, whole, stopped and continued."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from loradex.app.growing.grow import grow
from loradex.app.growing.options import GrowAnswer, GrowOptions
from loradex.app.growing.plan import plan_growing
from loradex.app.growing.run import GrowRun
from loradex.app.paths import MINIATURE
from loradex.app.pictures import PictureFinder
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import QueryError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.training.labelled_loras import find_labelled_loras

COUNT = 30
OPTIONS = GrowOptions(count=COUNT, pictures_per_lora=1, steps=0, samples=2, layers=("attn2.to_v", "attn1.to_out.0"))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GrowAnswer, Path, list[str]]]:
    """The answer of a run, its folder and what it reported."""
    folder = tmp_path_factory.mktemp("grown")
    steps: list[str] = []
    options = replace(OPTIONS, folder=folder / "mini-b", tree="grown-b")
    answer = grow("mini-b", folder / "encoder", options, lambda step, done, total: steps.append(step))
    yield answer, folder, steps
    shutil.rmtree(folder)


def test_words_become_an_expert(grown: tuple[GrowAnswer, Path, list[str]]) -> None:
    """An expert of the whole list, with its files in Model-J's layout, that says how it was made."""
    answer, folder, steps = grown
    files = find_labelled_loras(folder / "mini-b")
    assert len(files) == answer.words == COUNT
    lora = LoraFile.open(files[0].path)
    assert lora.family == "mini-b"
    assert len(lora.layers) == answer.layers
    assert len(PictureFinder().of(str(files[0].path))) == 1
    expert = Expert.load(Path(answer.expert))
    assert expert.tree == "grown-b"
    assert expert.provenance is not None
    assert (expert.provenance.made, expert.provenance.words, expert.provenance.steps) == ("grown", COUNT, 0)
    assert {"drawing", "growing"} <= set(steps)
    encoder = Encoder.load(folder / "encoder")
    assert encoder.encode_file(lora).shape == (encoder.space.dim,)
    assert answer.contact_sheet is not None
    with Image.open(answer.contact_sheet) as sheet:
        assert sheet.width > 12 * 64


def test_it_goes_on_where_it_was(grown: tuple[GrowAnswer, Path, list[str]]) -> None:
    """What is missing is made again, the same, and nothing else."""
    answer, folder, _ = grown
    files = find_labelled_loras(folder / "mini-b")
    lost, kept = files[3].path, files[7].path
    picture = next(lost.parent.glob("*.png"))
    pixels, weights, before = picture.read_bytes(), LoraFile.open(lost), kept.stat().st_mtime_ns
    updates = weights.updates(list(weights.layers)[:1])
    lost.unlink()
    picture.unlink()
    again = grow("mini-b", folder / "encoder", replace(OPTIONS, folder=folder / "mini-b", tree="grown-b"))
    assert picture.read_bytes() == pixels
    assert kept.stat().st_mtime_ns == before
    (layer, update), redone = *updates.items(), LoraFile.open(lost).updates(list(updates))
    difference = update.up @ update.down - redone[layer].up @ redone[layer].down
    assert float(difference.norm()) < 0.05 * float((update.up @ update.down).norm())
    assert again.loras == answer.loras


def test_other_settings_are_refused(grown: tuple[GrowAnswer, Path, list[str]]) -> None:
    """Files of two recipes are not mixed in one folder."""
    _, folder, _ = grown
    options = replace(OPTIONS, folder=folder / "mini-b", tree="grown-b", samples=3)
    with pytest.raises(QueryError, match="expected a run with samples 2, as it was begun, found 3; give the same"):
        grow("mini-b", folder / "encoder", options)


def test_a_plan(tmp_path: Path) -> None:
    """Hours and bytes are those of one picture and one sample, times what is missing; nothing is left behind."""
    plan = plan_growing("mini-b", replace(OPTIONS, folder=tmp_path / "none", samples=4))
    seconds = 2 * COUNT * plan.draw_s + COUNT * 4 * plan.sample_s
    assert plan.hours == pytest.approx(seconds / 3600, abs=0.01)
    assert (plan.to_draw, plan.to_grow) == (2 * COUNT, COUNT)
    assert 0 < plan.bytes < plan.free_bytes
    assert not (tmp_path / "none").exists()


def test_own_pictures(tmp_path: Path) -> None:
    """A folder of pictures for each concept takes the place of words; what is no picture is passed over."""
    for number in range(COUNT):
        folder = tmp_path / "mine" / f"my_thing_{number}"
        folder.mkdir(parents=True)
        for picture in range(3):
            Image.new("RGB", (80, 64), (8 * number, 60 * picture, 9)).save(folder / f"{picture}.jpg")
        (folder / "0.png").write_text("no picture")
    options = replace(OPTIONS, count=None, pictures=tmp_path / "mine", pictures_per_lora=2, folder=tmp_path / "run")
    run, encoder = GrowRun.prepare("mini-b", options), Encoder.load(MINIATURE / "encoder")
    run.make_pictures(encoder, lambda step, done, total: None)
    assert [concept.word for concept in run.concepts[:2]] == ["my thing 0", "my thing 1"]
    assert all(len(concept.read_pictures()) == 2 for concept in run.concepts)
    shutil.rmtree(tmp_path / "mine" / "my_thing_4")
    (tmp_path / "mine" / "my_thing_4").mkdir()
    (tmp_path / "mine" / "my_thing_4" / "a.png").write_text("no picture")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(QueryError, match="expected a picture of 'my thing 4' that can be read, found none"):
        run.make_pictures(encoder, lambda step, done, total: None)


def test_too_few_words(tmp_path: Path) -> None:
    """An expert needs words."""
    (tmp_path / "words.txt").write_text("cat\ndog\n")
    with pytest.raises(QueryError, match="words: expected at least 30 for an expert, found 2"):
        GrowRun.prepare("mini-b", GrowOptions(words=tmp_path / "words.txt"))
