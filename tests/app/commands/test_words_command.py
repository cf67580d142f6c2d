"""``loradex words`` on the command line: table, JSON, exit statuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loradex.app.commands.main import app
from loradex.retrieval.errors import QueryError
from loradex.retrieval.words.spelling import Speller
from tests.app.describe.samples import write_lora
from tests.app.words.captioned import SHIPPED, write_captioned


def run(*arguments: object, status: int = 0) -> Result:
    done = CliRunner().invoke(app, ["words", *map(str, arguments)])
    assert done.exit_code == status, done.output
    return done


def results(*arguments: object, status: int = 0) -> list[dict[str, Any]]:
    document = json.loads(run(*arguments, "--json", status=status).stdout)
    assert list(document) == ["results"]
    return document["results"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with a caption, one without, and one whose base model is not there."""
    folder = tmp_path_factory.mktemp("loras")
    write_captioned(folder / "a dog.safetensors", "dog")
    (folder / "icon.safetensors").symlink_to(SHIPPED)
    write_lora(folder / "sd1.safetensors")
    return folder


def test_a_folder_as_table_and_as_json(folder: Path) -> None:
    dog, sd1, icon = results(folder, "-k", "2", status=3)
    assert [Path(each["file"]).name for each in (dog, sd1, icon)] == [
        "a dog.safetensors",
        "sd1.safetensors",
        "icon.safetensors",  # a link, which comes after the files
    ]
    assert list(dog) == ["file", "family", "readable", "reason", "words", "nothing"]
    assert 0 <= dog["nothing"] < 0.5 and sd1["nothing"] is None
    assert (dog["family"], dog["readable"], dog["reason"]) == ("mini-b", True, None)
    assert dog["words"][0]["word"] == "dog" and list(dog["words"][0]) == ["word", "score", "probability"]
    assert len(dog["words"]) == 2
    assert icon["readable"] and max(word["probability"] for word in icon["words"]) < 0.5
    assert (sd1["readable"], sd1["words"]) == (False, [])
    done = run(folder, status=3)
    line = next(line for line in done.stdout.splitlines() if " dog " in line)
    assert line.split()[-2:] == [
        f"{dog['words'][0]['probability']:.0%}",
        "█" * round(20 * dog["words"][0]["probability"]),
    ]
    assert "2 of 3 files" in done.stdout
    assert "sd1.safetensors: base model: expected one of family sd1" in done.stderr
    assert "loradex base add --find" in done.stderr


def test_own_words(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kozu\ndog\nbrelix\ntovan\n")
    (found,) = results(folder / "a dog.safetensors", "--words", tmp_path / "mine.txt")
    assert found["words"][0]["word"] == "dog"
    assert {word["word"] for word in found["words"]} <= {"kozu", "dog", "brelix", "tovan"}


def test_words_are_spelt_where_asked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With own words too. The speller's search is tested with it; here it proposes one word."""
    asked: list[str] = []

    def spell(self: Speller, layers: object, count: int = 10, progress: object = None) -> list[tuple[str, float]]:
        asked.append("spell")
        return [("kozu", 9.0)]

    monkeypatch.setattr(Speller, "spell", spell)
    write_captioned(tmp_path / "kozu.safetensors", "kozu")
    (tmp_path / "mine.txt").write_text("dog\nbrelix\n")
    (usual,) = results(tmp_path)
    assert "kozu" not in {word["word"] for word in usual["words"]} and asked == []
    (spelt,) = results(tmp_path, "--spell")
    assert spelt["words"][0]["word"] == "kozu"
    (own,) = results(tmp_path, "--spell", "--words", tmp_path / "mine.txt")
    assert own["words"][0]["word"] == "kozu" and {word["word"] for word in own["words"]} == {"kozu", "dog", "brelix"}


def test_wrong_use(folder: Path, tmp_path: Path) -> None:
    assert run(folder / "sd1.safetensors", status=1).stdout == ""
    (tmp_path / "empty").mkdir()
    assert "expected .safetensors files" in run(tmp_path / "empty", status=1).stderr
    run(status=2)
    (tmp_path / "nothing.txt").touch()
    with pytest.raises(QueryError, match="expected one word per line"):
        CliRunner().invoke(
            app, ["words", str(folder), "--words", str(tmp_path / "nothing.txt")], catch_exceptions=False
        )
