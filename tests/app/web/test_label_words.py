"""The Label tab shows words as they are read, with what is said where there are none."""

import csv
import io
import json
import zipfile
from base64 import b64decode
from pathlib import Path

import pytest

from loradex.app.search.answers import LabelAnswer
from loradex.app.web.label_downloads import download_links, side_cars_zip, words_csv
from loradex.app.web.label_words import cards_of, lines_of
from loradex.app.web.labelled_file import LabelledFile
from loradex.app.words import FileWords
from loradex.retrieval.words import Word
from tests.app.describe.samples import write_lora

UPLOAD = "/uploads/<b>a.safetensors"
NO_BASE = f"{UPLOAD}: expected a base model of sd1, found none; `loradex base add --find`"
WORDS = (Word("kozu", 3.0, 0.93), Word("<i>dog", 2.0, 0.2), Word("hidden", 1.0, 0.01))


def labelled(reason: str | None = None) -> LabelledFile:
    answer = LabelAnswer(UPLOAD, "sd1", [], reason)
    return LabelledFile("<b>a.safetensors", UPLOAD, answer, ("<section>before", "after</section>"))


@pytest.mark.parametrize(
    ("found", "shown", "hidden"),
    [
        (FileWords(UPLOAD, "sd1", True, None, WORDS, 0.01), ["kozu", "93%", "&lt;i&gt;dog"], ["hidden", "no words"]),
        (FileWords(UPLOAD, "sd1", True, None, WORDS[1:], 0.3), ["unknown: no word", "20%"], ["hidden", "no words"]),
        (FileWords(UPLOAD, "sd1", True, "none", WORDS[1:], 0.93), ["no words to be read (93 %)"], ["dog", "%<"]),
        (FileWords(UPLOAD, "sd1", True, None, (), 0.6), ["no words to be read (60 %)"], ["unknown"]),
        (FileWords(UPLOAD, "sd1", False, NO_BASE), ["&lt;b&gt;a.safetensors: expected", "add --find"], ["/uploads"]),
    ],
)
def test_words_stand_in_the_card(found: FileWords, shown: list[str], hidden: list[str]) -> None:
    cards = cards_of([labelled(), labelled()], [found])
    first, second = cards.split("</section>")[:2]
    assert "Trained with" in first and "Trained with" not in second  # which is not read yet
    assert first.index("before") < first.index("Trained with") < first.index("after")
    assert all(text in first for text in shown) and not any(text in first for text in (*hidden, "<i>", "<b>a"))


def test_a_reason_is_not_said_twice() -> None:
    assert "Trained with" not in cards_of([labelled(NO_BASE)], [FileWords(UPLOAD, "unknown", False, NO_BASE)])


def test_own_words_are_lines() -> None:
    assert lines_of(" kozu \r\n\n\tred dog\n \n") == ["kozu", "red dog"]


def test_downloads_have_the_words(tmp_path: Path) -> None:
    """Cells that a spreadsheet would run are quoted; a side-car names likely words alone."""
    lora = write_lora(tmp_path / "a.safetensors").path
    found = FileWords(str(lora), "sd1", True, None, (Word("=1+1", 3.0, 0.9), *WORDS[1:]), 0.0)
    nothing = FileWords("/x/=b.safetensors", "sd1", False, "none")
    assert list(csv.reader(io.StringIO(words_csv([found, nothing])))) == [
        ["file", "family", "word", "probability"],
        ["a.safetensors", "sd1", "'=1+1", "0.9000"],
        ["a.safetensors", "sd1", "<i>dog", "0.2000"],
        ["a.safetensors", "sd1", "hidden", "0.0100"],
        ["'=b.safetensors", "sd1", "", ""],
    ]
    answer = LabelAnswer(str(lora), "sd1", [], "no expert", refused=True)
    with zipfile.ZipFile(io.BytesIO(side_cars_zip([answer], "space", [found]))) as archive:
        side_car = json.loads(archive.read("a.metadata.json"))
    assert "=1+1" in json.dumps(side_car) and "dog" not in json.dumps(side_car)
    assert "words.csv" not in download_links([answer], "space")
    (table,) = (link for link in download_links([answer], "space", [found]).split("<a ") if "words.csv" in link)
    assert b"hidden" in b64decode(table.split("base64,")[1].split('"')[0])
