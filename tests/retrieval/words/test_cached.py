"""States of candidates in a folder: kept, found again, and made anew where they cannot be used."""

from pathlib import Path

import pytest
import torch

from loradex.retrieval.words import Candidates, WordReader
from loradex.retrieval.words.cached import cache_path, load_states, save_states
from loradex.retrieval.words.prompts import make_candidates
from tests.few_words import FEW_WORDS
from tests.retrieval.words.captioned_layers import word_reader

WORDS = ("dog", "cat", "kozu")


@pytest.fixture
def candidates() -> Candidates:
    return word_reader().candidates(WORDS)


def equal(first: Candidates, second: Candidates) -> bool:
    return first.words == second.words and all(
        torch.equal(getattr(first, name), getattr(second, name)) for name in ("ends", "states", "handicaps")
    )


def test_states_come_back_as_they_were_kept(candidates: Candidates, tmp_path: Path) -> None:
    path = cache_path(tmp_path / "new" / "folder", "fingerprint", WORDS)
    common = word_reader().common
    save_states(path, common, candidates)
    loaded = load_states(path, WORDS)
    assert loaded is not None and equal(loaded[1], candidates)
    assert loaded[0].length == common.length and torch.equal(loaded[0].means, common.means)
    assert torch.equal(loaded[0].shared, common.shared)


def test_each_encoder_and_list_of_words_has_its_own_file(tmp_path: Path) -> None:
    paths = {cache_path(tmp_path, name, words) for name in "ab" for words in (WORDS, WORDS[:2])}
    assert len(paths) == 4


def test_what_cannot_be_used_is_not_loaded(candidates: Candidates, tmp_path: Path) -> None:
    path = tmp_path / "states.safetensors"
    assert load_states(path, WORDS) is None
    save_states(path, word_reader().common, candidates)
    assert load_states(path, WORDS[:2]) is None
    path.write_bytes(path.read_bytes()[:-100])
    assert load_states(path, WORDS) is None
    path.write_bytes(b"nonsense")
    assert load_states(path, WORDS) is None


def test_a_folder_that_cannot_be_written_to_keeps_none(candidates: Candidates, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    save_states(tmp_path / "file" / "states.safetensors", word_reader().common, candidates)


def test_a_reader_encodes_once_and_again_after_damage(tmp_path: Path) -> None:
    encoder, calls = word_reader().encoder, list[tuple[int, int]]()

    def load() -> WordReader:
        calls.clear()
        return WordReader(encoder, tmp_path, lambda done, total: calls.append((done, total)))

    first = load()
    assert calls[-1] == (3 * len(FEW_WORDS), 3 * len(FEW_WORDS))
    assert equal(load().usual, first.usual) and calls == []
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    assert equal(load().usual, first.usual) and calls
    load()
    assert calls == []


def test_states_are_those_of_the_words_in_the_templates(candidates: Candidates) -> None:
    reader = word_reader()
    tokens = reader.encoder.tokenize(["best quality, kozu"])
    states = reader.common.centred(reader.encoder.states(tokens)[:, 1:9])[0]
    kept = candidates.states[2, 2].float()  # of the template "best quality, {}", whose beginning has three tokens
    torch.testing.assert_close(kept, states[3:7], atol=2e-2, rtol=1e-2)
    alone = reader.common.centred(reader.encoder.states(reader.encoder.tokenize(["kozu"]))[:, 1:9])[0]
    torch.testing.assert_close(candidates.ends[2].float(), alone[2], atol=2e-2, rtol=1e-2)  # ko, zu, end
    assert not make_candidates(reader.encoder, reader.common, reader.templates, []).words
