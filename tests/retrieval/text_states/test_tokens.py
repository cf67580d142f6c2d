"""Tokens against transformers' tokenizer as diffusers calls it, and against open_clip's own."""

import pytest
import torch

from loradex.retrieval.space.everyday import everyday_words
from loradex.retrieval.space.text_tower import load_tokenize
from loradex.retrieval.text_states.tokens import END_ID, load_tokenizer, tokenize_texts
from tests.retrieval.text_states.pipelines import END, tokenizer

PROMPTS = [
    "",
    " \t\n",
    "a photo of a KOZU dog",
    "don't, we've; it's (masterpiece:1.2), [x|y]",
    "wow!!! a cat!",
    "\u0130stanbul \u1e9e caf\u00e9 cafe\u0301 \ufb01ne \u00bd",
    "\u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \U0001f389\U0001f469\u200d\U0001f4bb",
    "<|startoftext|> a <|endoftext|> b",
    "a very long prompt, " * 40,
    "z\u0338\u0321" * 200,
    "null\0 and bell\a",
]


@pytest.mark.parametrize(("pad", "name"), [(END_ID, END), (0, "!")])
def test_tokens_are_those_of_diffusers(pad: int, name: str) -> None:
    expected = tokenizer(name)(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    assert torch.equal(tokenize_texts(PROMPTS, 77, pad, pad), expected.input_ids)
    assert tokenize_texts([], 77, pad, pad).shape == (0, 77)


def test_everyday_words_have_the_tokens_of_open_clip() -> None:
    texts = [f"a photo of a {word}!" for word in everyday_words()]
    assert len(texts) > 1000
    assert torch.equal(tokenize_texts(texts, 77, 0, END_ID), load_tokenize()(texts))


@pytest.mark.parametrize(("text", "cleaned"), [("it\u2019s", "it's"), ("&amp; &lt;3", "& <3"), ("\ufb01ne", "fine")])
def test_where_open_clip_cleans_texts_more(text: str, cleaned: str) -> None:
    ours = tokenize_texts([text, cleaned], 77, 0, END_ID)
    theirs = load_tokenize()([text, cleaned])
    assert torch.equal(theirs[0], theirs[1])
    assert torch.equal(ours[1], theirs[1])
    assert not torch.equal(ours[0], ours[1])


def test_tokens_have_texts() -> None:
    numbers = tokenize_texts(["a kozu dog"], 77, END_ID, END_ID)[0]
    assert load_tokenizer().decode(numbers, skip_special_tokens=True) == "a kozu dog"
