"""Words that stand in no list are spelt token by token."""

import pytest
import torch

from loradex.retrieval.words import spelling
from loradex.retrieval.words.spelling import Speller, is_plain
from tests.retrieval.words.captioned_layers import caption_states, mixed_rows, word_reader

OTHER_TOKENS = 1000
FEW = {"BEAMS": (3, 2), "FIRST_TOKENS": 100, "NEXT_TOKENS": 200, "COMPARED": 50, "SHORT": 1}
BEGINNINGS = ("", "an icon of a", "best quality,")


@pytest.fixture(autouse=True)
def small_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the search try little, as there are few tokens."""
    for name, value in FEW.items():
        monkeypatch.setattr(spelling, name, value)
    monkeypatch.setattr(spelling, "BEGINNINGS", BEGINNINGS)


@pytest.fixture(scope="module")
def speller() -> Speller:
    """With few of all tokens, among which are those of kozu."""
    speller = Speller(word_reader().encoder, word_reader().common)
    chosen = torch.randperm(len(speller.tokens), generator=torch.Generator().manual_seed(0))[:OTHER_TOKENS]
    needed = torch.tensor([speller.numbers["ko"], speller.numbers["zu</w>"], speller.numbers["dog</w>"]])
    speller.tokens = torch.cat([speller.tokens[chosen], needed]).unique()
    return speller


def test_a_word_of_two_tokens_behind_a_template(speller: Speller) -> None:
    calls: list[tuple[int, int]] = []
    proposals = speller.spell(
        mixed_rows(caption_states("an icon of a kozu"), 0), 5, lambda done, total: calls.append((done, total))
    )
    assert proposals[0][0] == "kozu" and len(proposals) == 5
    scores = [score for _, score in proposals]
    assert scores == sorted(scores, reverse=True)
    assert calls and all(0 < done <= total for done, total in calls)


def test_a_word_of_one_token(speller: Speller) -> None:
    assert speller.spell(mixed_rows(caption_states("dog"), 1), 3)[0][0] == "dog"


def test_proposals_are_spelt_as_the_tokenizer_does(speller: Speller) -> None:
    for word, _ in speller.spell(mixed_rows(caption_states("kozu dog"), 2)):
        assert word.isalnum() and word.islower() or word.isdigit()
        tokens = speller._encode(word).ids[1:-1]
        assert len(tokens) <= 1 + len(spelling.BEAMS) and set(tokens) <= set(speller.tokens.tolist())


def test_plain_tokens() -> None:
    assert [is_plain(name) for name in ("dog</w>", "ko", "7</w>", "é", "!</w>", "</w>", "Ko", "<|endoftext|>")] == [
        *[True] * 3,
        *[False] * 5,
    ]
