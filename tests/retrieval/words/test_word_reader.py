"""Reading of whole files: words, own candidates, spelling, files that train the text encoder, hostile files."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileError, NoWords, QueryError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.words import Reading, reader
from loradex.retrieval.words.captions import Found
from loradex.retrieval.words.english import COUNT, english_words
from loradex.retrieval.words.reader import MAX_CANDIDATES, MAX_WORD, probability
from tests.retrieval.words.captioned_layers import caption_states, mixed_rows, save_lora, word_reader

TEXT_LAYER = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


def lora_of(caption: str, path: Path, **others: Tensor) -> LoraFile:
    return LoraFile.open(save_lora(path, mixed_rows(caption_states(caption), seed=7), **others))


def text_update(scale: float, width: int = 128) -> dict[str, Tensor]:
    """A LoRA's update of the text encoder."""
    generator = torch.Generator().manual_seed(8)
    return {
        f"{TEXT_LAYER}.lora_A.weight": scale * torch.randn(2, width, generator=generator),
        f"{TEXT_LAYER}.lora_B.weight": torch.randn(width, 2, generator=generator),
    }


def check(reading: Reading) -> None:
    """Facts of every reading."""
    assert all(0 <= word.probability <= 1 for word in reading.words)
    keys = [(-word.probability, -word.score) for word in reading.words]
    assert keys == sorted(keys)
    words = [word.word for word in reading.words]
    assert len(words) == len(set(words)) and not set(words) & reader.NAMES_NOTHING
    assert 0 <= reading.nothing <= 1


def test_a_word_is_read_and_others_are_ranked_behind_it(tmp_path: Path) -> None:
    reading = word_reader().read(lora_of("a photo of a dog", tmp_path / "a.safetensors"), k=5)
    check(reading)
    assert reading.words[0].word == "dog" and reading.words[0].probability > 0.9
    assert len(reading.words) == 5 and reading.nothing < 0.1
    assert len(word_reader().read(lora_of("dog", tmp_path / "b.safetensors"), k=1).words) == 1


def test_a_prompt_that_names_nothing_leaves_no_words(tmp_path: Path) -> None:
    reading = word_reader().read(lora_of("an icon", tmp_path / "a.safetensors"))
    check(reading)
    assert reading.nothing > 0.5 and len(reading.words) == 10


def test_own_candidates_stand_in_place_of_the_usual_ones(tmp_path: Path) -> None:
    own = word_reader().candidates(["tovan", "kozu", "red dog", "tovan"])
    assert own.words == ("tovan", "kozu", "red dog")
    reading = word_reader().read(lora_of("kozu", tmp_path / "a.safetensors"), candidates=own)
    check(reading)
    assert reading.words[0].word == "kozu" and {word.word for word in reading.words} == {"tovan", "kozu", "red dog"}


def test_what_a_person_asks_for_is_answered(tmp_path: Path) -> None:
    """A word that says nothing in captions is no answer among the usual candidates, but one among a person's own."""
    file = lora_of("logo", tmp_path / "a.safetensors")
    assert "logo" not in {word.word for word in word_reader().read(file).words}
    reading = word_reader().read(file, candidates=word_reader().candidates(["dog", "logo"]))
    assert reading.words[0].word == "logo" and reading.words[0].probability > 0.5


@pytest.mark.parametrize("words", [[], ["dog"] * (MAX_CANDIDATES + 1), ["dog", " "], ["x" * (MAX_WORD + 1)]])
def test_bounds_of_own_candidates(words: list[str]) -> None:
    with pytest.raises(QueryError, match="^candidate words: expected 1 to ") as error:
        word_reader().candidates(words)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize("word", ["x" * MAX_WORD, "\0", "é\n🐶", "<|endoftext|>", "!!"])
def test_odd_candidates_are_encoded(word: str, tmp_path: Path) -> None:
    own = word_reader().candidates([word, "dog"])
    assert own.states.isfinite().all() and own.ends.isfinite().all()
    check(word_reader().read(lora_of("dog", tmp_path / "a.safetensors"), candidates=own))


def test_spelt_words_join_the_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The speller itself has its own tests; here it proposes what it would find, one of it a candidate already."""
    monkeypatch.setattr(word_reader().speller, "spell", lambda layers, progress: [("kozu", 9.0), ("dog", 5.0)])
    file = lora_of("an icon of a kozu", tmp_path / "a.safetensors")
    assert "kozu" not in {word.word for word in word_reader().read(file).words}
    for own in (None, word_reader().candidates(["dog", "cat"])):
        reading = word_reader().read(file, candidates=own, spell=True)
        check(reading)
        assert reading.words[0].word == "kozu" and reading.words[0].probability > 0.5


def test_a_file_that_trains_the_text_encoder_too(tmp_path: Path) -> None:
    """Its states are those of the trained text encoder."""
    update = text_update(0.3)
    encoder, common = word_reader().encoder, word_reader().common
    file = lora_of("dog", tmp_path / "a.safetensors", **update)
    tokens = encoder.tokenize(["dog"])
    with encoder.with_updates(file.updates([name for name in file.layers if name.startswith("text_encoder")])):
        states = common.centred(encoder.states(tokens)[:, 1:9])[0]
    assert (states - caption_states("dog")).norm() > 0.05 * states.norm()
    path = save_lora(tmp_path / "b.safetensors", mixed_rows(states, seed=9), **update)
    before = encoder.states(tokens)
    reading = word_reader().read(LoraFile.open(path))
    check(reading)
    assert reading.words[0].word == "dog"
    assert torch.equal(encoder.states(tokens), before)


@pytest.mark.parametrize("update", [text_update(float("nan")), text_update(1e11), text_update(1, 64)])
def test_hostile_updates_of_the_text_encoder(update: dict[str, Tensor], tmp_path: Path) -> None:
    before = word_reader().encoder.states(word_reader().encoder.tokenize(["dog"]))
    file = lora_of("dog", tmp_path / "a.safetensors", **update)
    try:
        check(word_reader().read(file))
    except FileError as error:
        assert str(error).startswith(f"{file.path}: ") and str(error).count(str(file.path)) == 1
        assert "\n" not in str(error)
    assert torch.equal(word_reader().encoder.states(word_reader().encoder.tokenize(["dog"])), before)


def test_hostile_files(tmp_path: Path) -> None:
    rows = mixed_rows(caption_states("dog"), seed=1)
    rows[0][0, 0] = math.nan
    file = LoraFile.open(save_lora(tmp_path / "nan.safetensors", rows))
    with pytest.raises(FileCorrupt, match="nan.safetensors: ") as corrupt:
        word_reader().read(file)
    assert str(corrupt.value).count(str(file.path)) == 1
    other = LoraFile.open(save_lora(tmp_path / "other.safetensors", [torch.ones(2, 64)], (TEXT_LAYER,)))
    with pytest.raises(NoWords):
        word_reader().read(other)
    for value in (1e-30, 1e10):  # tiny and large weights are weights
        scaled = [value * layer for layer in mixed_rows(caption_states("dog"), seed=1)]
        reading = word_reader().read(LoraFile.open(save_lora(tmp_path / "scaled.safetensors", scaled)))
        check(reading)
        assert reading.words[0].word == "dog"
    # updates in directions alone that all texts share
    start = word_reader().common.shared[:1].repeat(2, 1)
    check(word_reader().read(LoraFile.open(save_lora(tmp_path / "start.safetensors", [start] * 12))))


def test_probabilities_of_any_gain() -> None:
    probabilities = [probability(Found(0, gain, 0.9)) for gain in (-1e6, -100.0, 10.0, 30.0, 1e6)]
    assert probabilities == sorted(probabilities)
    assert probabilities[0] == pytest.approx(0) and probabilities[-1] == pytest.approx(0.9)


def test_english_words() -> None:
    words = english_words()
    assert len(words) == COUNT == 20_000 and len(set(words)) == COUNT
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
    assert {"dog", "watercolor", "icon"} <= set(words)
    assert words.index("dog") < 1000
