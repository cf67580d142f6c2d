"""Words that were read from weights are offered as trigger words, marked as such, and recognised as Loradex's own."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from loradex.app.bases import Bases
from loradex.app.describe.descriptions import describe_files
from loradex.app.describe.model_cards import plan_card
from loradex.app.describe.predictions import WORDS_KEY, Words
from loradex.app.describe.side_cars import new_side_car, plan_side_car
from loradex.app.describe.text_edit import apply_edit
from loradex.app.paths import MINIATURE
from loradex.app.search.service import Loradex
from loradex.app.words import WordsService
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.words import Word
from tests.app.describe.samples import PIZZA, SPACE, write_lora
from tests.app.words.captioned import SHIPPED, write_captioned

KOZU = [Word("kozu", 9.0, 0.9312), Word("dog", 5.0, 0.88)]
ENTRIES = [{"word": "kozu", "probability": 0.931}, {"word": "dog", "probability": 0.88}]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "x" / "cat.safetensors").path


def side_car(path: Path, words: Words) -> dict[str, Any]:
    """Write the side-car of a file; returns its fields."""
    edit = plan_side_car(LoraFile.open(path), PIZZA, SPACE, words)
    apply_edit(edit, path)
    return json.loads(edit.path.read_text("utf-8"))


def card(path: Path, words: Words) -> dict[str, Any]:
    """Write the card of a file; returns its fields."""
    edit = plan_card(LoraFile.open(path), PIZZA, SPACE, words)
    apply_edit(edit, path)
    return yaml.safe_load(edit.path.read_text("utf-8").split("---")[1])


def test_side_cars_offer_words_and_say_where_they_come_from(path: Path) -> None:
    fields = side_car(path, KOZU)
    assert fields["civitai"]["trainedWords"] == ["kozu", "dog"]
    assert fields["loradex"][WORDS_KEY] == ENTRIES
    assert fields["loradex"]["wrote"]["civitai.trainedWords"] == ["kozu", "dog"]
    assert "Words in the weights: kozu 93%, dog 88%. Family sd1" in fields["notes"]
    assert LoraFile.open(path).facts.trigger_words == ()  # ours are not read back as a person's
    assert side_car(path, KOZU) == fields


def test_words_that_cannot_be_read_now_stay(path: Path) -> None:
    fields = side_car(path, KOZU)
    assert side_car(path, None) == fields
    taken_back = side_car(path, [])
    assert taken_back["civitai"]["trainedWords"] == []
    assert WORDS_KEY not in taken_back["loradex"] and "Words in" not in taken_back["notes"]
    assert side_car(path, None) == taken_back


@pytest.mark.parametrize("damaged", [3, "kozu", [1, {"word": 2}, {"word": "a"}], [{"word": "a", "probability": "b"}]])
def test_damaged_entries_are_ignored(path: Path, damaged: object) -> None:
    fields = side_car(path, KOZU)
    fields["loradex"][WORDS_KEY] = damaged
    path.with_name("cat.metadata.json").write_text(json.dumps(fields))
    assert WORDS_KEY not in side_car(path, None)["loradex"]


def test_words_of_people_go_first(path: Path) -> None:
    side_car(path, KOZU)
    target = path.with_name("cat.metadata.json")
    fields = json.loads(target.read_text("utf-8"))
    fields["civitai"]["trainedWords"] = ["my word"]
    target.write_text(json.dumps(fields))
    assert side_car(path, KOZU)["civitai"]["trainedWords"] == ["my word"]
    stated = write_lora(path.with_name("stated.safetensors"), modelspec__trigger_phrase="ohwx cat").path
    assert side_car(stated, KOZU)["civitai"]["trainedWords"] == ["ohwx cat"]


def test_cards(path: Path) -> None:
    fields = card(path, KOZU)
    assert fields["instance_prompt"] == "kozu, dog"
    assert fields["loradex"][WORDS_KEY] == ENTRIES
    assert card(path, None) == fields
    assert "instance_prompt" not in card(path, [])


def test_a_side_car_for_download(path: Path) -> None:
    document = new_side_car(LoraFile.open(path), PIZZA, SPACE, KOZU)
    assert document["civitai"]["trainedWords"] == ["kozu", "dog"]


def test_only_likely_words_of_a_file_are_offered(tmp_path: Path) -> None:
    write_captioned(tmp_path / "x" / "dog.safetensors", "dog")
    (tmp_path / "x" / "icon.safetensors").symlink_to(SHIPPED)
    service = WordsService(Bases({}, ()))
    files = describe(sorted((tmp_path / "x").iterdir()), service)
    expected = [word.word for word in service.read_path(tmp_path / "x" / "dog.safetensors").likely]
    assert expected[0] == "dog"
    assert files["dog"]["civitai.trainedWords"] == expected
    assert "civitai.trainedWords" not in files["icon"]


def describe(files: Sequence[Path], service: WordsService) -> dict[str, dict[str, Any]]:
    """The new fields of each file's side-car."""
    loradex = Loradex(encoder=MINIATURE / "encoder")
    answer = describe_files(files, loradex, "side-car", None, dry_run=True, progress=lambda *_: None, words=service)
    return {Path(file.file).stem: {change.field: change.new for change in file.changes} for file in answer.files}
