"""Words of files by a service: which are found, why there are none, and what is kept in memory."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import loradex.app.words.service
from loradex.app.bases import Bases
from loradex.app.commands.tables.words import word_cells
from loradex.app.paths import MINIATURE
from loradex.app.words import FileWords, WordsService
from loradex.retrieval.errors import QueryError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.words import MIN_PROBABILITY, Reading, Word, WordReader
from tests.app.describe.samples import write_lora
from tests.app.words.captioned import SHIPPED, write_captioned

NONSENSE = ["kozu", "brelix", "tovan", "mirku", "sefalo", "quandor", "ipleth", "gruvani"]
MINI_A = sorted(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))[0]


@pytest.fixture(scope="module")
def service() -> WordsService:
    return WordsService(Bases({}, ()))


@pytest.fixture(scope="module")
def dog(tmp_path_factory: pytest.TempPathFactory) -> LoraFile:
    return LoraFile.open(write_captioned(tmp_path_factory.mktemp("dog") / "dog.safetensors", "dog"))


def test_the_word_of_a_caption_is_found_and_likely(service: WordsService, dog: LoraFile) -> None:
    found = service.read(dog, k=3)
    assert (found.file, found.family, found.readable, found.reason) == (str(dog.path), "mini-b", True, None)
    assert len(found.words) == 3
    assert found.words[0].word == "dog"
    assert found.likely[0] == found.words[0]
    assert found.nothing is not None and found.nothing < 0.5
    probabilities = [word.probability for word in found.words]
    assert probabilities == sorted(probabilities, reverse=True)


def test_where_the_prompt_named_nothing_there_are_no_words(service: WordsService) -> None:
    found = service.read_path(SHIPPED)
    assert found.readable and found.likely == ()
    assert found.nothing is not None
    expected = f"there are no words to be read, with a probability of {found.nothing:.0%}"
    assert found.reason == (expected if found.nothing >= 0.5 else None)


def test_a_reading_that_says_that_there_are_no_words(
    service: WordsService, dog: LoraFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (Word("dog", 1.0, 0.04),)
    monkeypatch.setattr(WordReader, "read", lambda *_: Reading(words, 0.93))
    found = service.read(dog)
    assert (found.readable, found.words, found.nothing, found.likely) == (True, words, 0.93, ())
    assert found.reason == "there are no words to be read, with a probability of 93%"
    assert list(word_cells(found)) == [("no words to be read (93%)", "", "")]


def test_own_candidates_are_encoded_once_for_many_files(dog: LoraFile, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    service = WordsService(Bases({}, ()))
    service.reader("mini-b")
    service.progress = lambda done, total: calls.append((done, total))
    kozu = LoraFile.open(write_captioned(tmp_path / "kozu.safetensors", "kozu"))
    found = service.read(kozu, k=99, candidates=NONSENSE)
    assert found.words[0].word == "kozu"
    assert {word.word for word in found.words} <= set(NONSENSE)
    assert calls
    calls.clear()
    service.read(dog, candidates=list(NONSENSE))
    assert calls == []
    service.read(dog, candidates=NONSENSE[:4])
    assert calls


def test_too_many_candidates(service: WordsService, dog: LoraFile) -> None:
    with pytest.raises(QueryError):
        service.read(dog, candidates=["dog"] * 1_000_000)


def test_why_words_cannot_be_read(service: WordsService, tmp_path: Path) -> None:
    """One line each: the file, what is missing, and what to do."""
    others = {name: tensor for name, tensor in load_file(SHIPPED).items() if "attn2.to_k" not in name}
    save_file({name: tensor for name, tensor in others.items() if "attn2.to_v" not in name}, tmp_path / "q.safetensors")
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html>")
    write_lora(tmp_path / "sd1.safetensors")
    write_lora(tmp_path / "wan.safetensors", "wan")
    expected = {
        "sd1.safetensors": ("sd1", "loradex base add --find"),
        "wan.safetensors": ("wan", "found wan"),
        "q.safetensors": ("mini-b", "cross-attention"),
        "page.safetensors": ("unknown", "expected"),
        "missing.safetensors": ("unknown", "No such file"),
    }
    for name, (family, text) in expected.items():
        found = service.read_path(tmp_path / name)
        assert (found.family, found.readable, found.words, found.nothing) == (family, False, (), None)
        assert str(found.reason).startswith(f"{tmp_path / name}: ")
        assert text in str(found.reason) and "\n" not in str(found.reason)


def test_a_base_model_that_moved_is_named(tmp_path: Path) -> None:
    write_lora(tmp_path / "sd1.safetensors")
    moved = WordsService(Bases({"sd1": tmp_path / "gone"}, ())).read_path(tmp_path / "sd1.safetensors")
    assert not moved.readable
    assert re.search(r"sd1.*gone", str(moved.reason))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The families of the readers that are loaded, in order."""
    loaded: list[str] = []
    load = loradex.app.words.service.WordReader.load

    def counted(base, *arguments):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN202
        loaded.append(base.family)
        return load(base, *arguments)

    monkeypatch.setattr(loradex.app.words.service.WordReader, "load", counted)
    yield loaded


def test_readers_that_were_used_last_stay_in_memory(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    service = WordsService(Bases({}, ()))
    for path in (SHIPPED, MINI_A, SHIPPED, MINI_A):
        assert service.read_path(path).readable
    assert loads == ["mini-b", "mini-a"]
    loads.clear()
    monkeypatch.setattr(loradex.app.words.service, "MAX_READERS", 1)
    service = WordsService(Bases({}, ()))
    for path in (MINI_A, SHIPPED, SHIPPED, MINI_A):
        assert service.read_path(path).readable
    assert loads == ["mini-a", "mini-b", "mini-a"]


def test_json() -> None:
    words = (Word("kozu", 3.25, 0.93123456), Word("dog", 1.0, MIN_PROBABILITY), Word("cat", 0.5, 0.1))
    found = FileWords("/x.safetensors", "sd1", True, None, words, 0.02)
    assert found.as_json() == {
        "file": "/x.safetensors",
        "family": "sd1",
        "readable": True,
        "reason": None,
        "words": [
            {"word": "kozu", "score": 3.25, "probability": 0.931235},
            {"word": "dog", "score": 1.0, "probability": 0.5},
            {"word": "cat", "score": 0.5, "probability": 0.1},
        ],
        "nothing": 0.02,
    }
    assert [word.word for word in found.likely] == ["kozu", "dog"]
    assert replace(found, words=()).likely == ()
