"""How an expert was made, kept by its checkpoint; checkpoints without it are read as before."""

from dataclasses import replace
from pathlib import Path

import pytest

from loradex.app.paths import MINIATURE
from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.probex.expert import FORMAT, Expert
from loradex.retrieval.probex.provenance import GROWN, TRAINED, Provenance

SHIPPED = MINIATURE / "encoder" / "experts" / "mini-b.safetensors"
MADE = Provenance(GROWN, "sdxl", "abcdef0123456789", loras=20, words=2000, steps=0, samples=32)


def test_a_checkpoint_keeps_it_and_old_ones_have_none(tmp_path: Path) -> None:
    expert = Expert.load(SHIPPED)
    assert expert.provenance is None
    expert.save(tmp_path / "old.safetensors")
    assert "provenance" not in load_checkpoint(tmp_path / "old.safetensors", FORMAT)[0]
    replace(expert, provenance=MADE).save(tmp_path / "new.safetensors")
    assert Expert.load(tmp_path / "new.safetensors").provenance == MADE


def test_as_json_and_in_words() -> None:
    assert Provenance.parse(MADE.document() | {"later": 1}) == MADE
    assert MADE.in_words == "grown from 2,000 words, 20 LoRAs, 32 samples, base sdxl abcdef012345"
    trained = Provenance(TRAINED, "sd1", loras=14_000)
    assert Provenance.parse(trained.document()) == trained
    assert trained.in_words == "trained from 14,000 LoRAs, base sd1"


@pytest.mark.parametrize(
    "change",
    [
        {"made": "found"},
        {"family": 3},
        {"family": "sd1\x1b"},
        {"fingerprint": "x" * 201},
        {"fingerprint": 7},
        {"words": -1},
        {"words": True},
        {"loras": 2.5},
        {"steps": 2**41},
        {"samples": "many"},
        {"loradex": None},
    ],
)
def test_other_forms_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a provenance"):
        Provenance.parse(MADE.document() | change)
    settings, tensors = load_checkpoint(SHIPPED, FORMAT)
    save_checkpoint(tmp_path / "bad.safetensors", FORMAT, settings | {"provenance": MADE.document() | change}, tensors)
    with pytest.raises(CheckpointError, match="found a gap at a provenance"):
        Expert.load(tmp_path / "bad.safetensors")
