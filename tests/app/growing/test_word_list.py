"""The words that ship are many, of all kinds and in a fair order; a person's list is read within bounds."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import loradex.app.growing.word_list
from loradex.app.growing.word_list import FILE, Word, parse_words, read_words, shipped_words, slug
from loradex.retrieval.errors import QueryError


def test_many_words_of_all_kinds_ship() -> None:
    words = shipped_words()
    kinds = Counter(word.kind for word in words)
    assert len(words) > 2000
    assert len(kinds) == 14
    assert min(kinds.values()) > 90
    assert len({word.key for word in words}) == len({slug(word.text) for word in words}) == len(words)
    assert all(word.text.isprintable() and 2 <= len(word.text) < 40 for word in words)
    lines = [line for line in FILE.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert Counter(lines) == Counter(word.text for word in words)  # none stands there twice


@pytest.mark.parametrize("count", [100, 300, 1000, 2000])
def test_any_first_part_has_a_fair_share_of_every_kind(count: int) -> None:
    words = shipped_words()
    first, whole = (Counter(word.kind for word in part) for part in (words[:count], words))
    for kind, number in whole.items():
        assert abs(first[kind] - number * count / len(words)) <= 1


def test_common_words_come_first() -> None:
    place = {word.text: i for i, word in enumerate(shipped_words())}
    for common, rare in (("cat", "axolotl"), ("apple", "dragon fruit"), ("house", "yurt"), ("shirt", "cufflinks")):
        assert place[common] < len(place) / 4 < place[rare]


def test_the_list_is_read_without_torch() -> None:
    code = (
        "import sys; from loradex.app.growing.word_list import shipped_words; shipped_words(); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_list_without_kinds_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("## mine\nzebra\napple\n\nRed  Dog\nAPPLE\nred dog\nmoon\n", "utf-8")
    assert [word.text for word in read_words(path)] == ["zebra", "apple", "Red Dog", "moon"]
    assert {word.kind for word in read_words(path)} == {""}


def test_kinds_are_mixed_by_their_sizes() -> None:
    words = parse_words(["# a", "a1", "a2", "a3", "a4", "# b", "b1", "b2", "a1"])
    assert words[0] == Word("a1", "a")
    assert [word.text for word in words] == ["a1", "b1", "a2", "a3", "b2", "a4"]  # at 1/8, 1/4, 3/8, 5/8, 3/4, 7/8


@pytest.mark.parametrize("content", ["# animals\n## nothing\n", "", "x" * 201, "bell\x07\n", "one\ntwo\nthree\nfour\n"])
def test_lists_that_cannot_be_used(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loradex.app.growing.word_list, "MAX_WORDS", 3)
    path = tmp_path / "words.txt"
    path.write_text(content, "utf-8")
    with pytest.raises(QueryError, match=r"words.txt: expected .*, found .*; ") as error:
        read_words(path)
    assert "\n" not in str(error.value)


def test_folder_names_are_safe_and_differ() -> None:
    assert [slug(word) for word in ("cat", "Polar  Bear", "t-shirt", "t shirt")] == [
        "cat",
        "polar_bear",
        "t-shirt",
        "t_shirt",
    ]
    words = [
        "cat.",
        "cat!",
        "café",
        "cafe",
        "猫",
        "犬",
        "../../etc",
        "..",
        "con",
        "a/b",
        "ab",
        "-a",
        "a_b",
        "a b",
        "x" * 80,
    ]
    names = [slug(word) for word in words]
    assert len(set(names)) == len(words)
    for name in names:
        assert len(name) < 80 and name not in {"con", ".", ".."} and name[0].isalnum()
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.")
