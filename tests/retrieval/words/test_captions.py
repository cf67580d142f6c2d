"""Captions word by word: each further word explains what the others leave over."""

import pytest
import torch
from torch import Tensor

from loradex.retrieval.words.captions import Found, compare_openings, grow_caption
from loradex.retrieval.words.prompts import Candidates
from tests.retrieval.words.captioned_layers import caption_states, mixed_rows, word_reader


def word_states(*words: str) -> Tensor:
    """What a caption of these words would leave, each word with the end behind it."""
    usual = word_reader().usual
    return torch.cat([usual.states[0, usual.words.index(word)].float()[:2] for word in words])


def grown(layers: list[Tensor], candidates: Candidates | None = None, most: int = 6) -> list[tuple[str | None, Found]]:
    reader = word_reader()
    candidates = candidates or reader.usual
    opening = compare_openings(reader.common, reader.templates, layers, candidates, 100)
    found = grow_caption(reader.common, reader.templates, layers, candidates, opening, reader.nothing, most, 6.0)
    return [(None if each.row is None else candidates.words[each.row], each) for each in found]


@pytest.mark.parametrize("words", [("dog", "cat"), ("icon", "baby"), ("dog", "twitter")])
def test_both_words_of_a_caption_are_found(words: tuple[str, str]) -> None:
    found = grown(mixed_rows(word_states(*words), seed=3))
    assert {word for word, _ in found[:2]} == set(words)
    least = min(each.gain for _, each in found[:2])
    assert least > 100 and all(each.share > 0.5 for _, each in found[:2])
    assert all(each.gain < least / 4 for _, each in found[2:])


def test_one_word_is_enough_for_a_caption_of_one() -> None:
    (first, best), *others = grown(mixed_rows(word_states("dog"), seed=3))
    assert first == "dog"
    assert all(each.gain < best.gain / 10 for _, each in others)


@pytest.mark.parametrize("prompt", ["an icon", "a photo of", "best quality"])
def test_prompts_that_name_nothing_win_for_what_was_trained_with_one(prompt: str) -> None:
    (first, best), *others = grown(mixed_rows(caption_states(prompt), seed=4))
    assert first is None and best.share > 0.5
    assert all(each.gain < best.gain / 10 for _, each in others)


def test_a_word_is_found_once() -> None:
    """Even if there are hardly others."""
    layers = mixed_rows(word_states("dog", "dog"), seed=5)
    two = word_reader().candidates(["dog", "cat"])
    words = [word for word, _ in grown(layers, two)]
    assert words[0] == "dog" and len(words) == len(set(words))
    assert [word for word, _ in grown(layers, word_reader().candidates(["dog"]))] == ["dog"]


def test_no_more_than_are_wanted() -> None:
    assert len(grown(mixed_rows(word_states("dog", "cat"), seed=3), most=1)) == 1


def test_a_handicap_lets_another_candidate_win() -> None:
    two = word_reader().candidates(["dog", "cat"])
    layers = mixed_rows(word_states("dog"), seed=6)
    before, after = grown(layers, two, 1), grown(layers, two.joined(word_reader().candidates(["dog"])), 1)
    assert before[0][1].gain == pytest.approx(after[0][1].gain)
    two.handicaps[0] = 1e6
    assert grown(layers, two, 1)[0][0] != "dog"
