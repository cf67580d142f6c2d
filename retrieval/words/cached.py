"""The states of the usual candidates and what they share, kept in a folder for the next time."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.words.likelihood import CommonStates
from loradex.retrieval.words.prompts import TEMPLATES, WORD_POSITIONS, Candidates

FORMAT: Final = "loradex-words-2"  # to be raised when the same words get other states


def cache_path(folder: Path, fingerprint: str, words: Sequence[str]) -> Path:
    """The file that holds the states of words, as the text encoder of a fingerprint makes them."""
    text = "\n".join((FORMAT, fingerprint, str(WORD_POSITIONS), *TEMPLATES, *words))
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.safetensors"


def load_states(path: Path, words: Sequence[str]) -> tuple[CommonStates, Candidates] | None:
    """Load what ``save_states`` wrote; None if it is not there, damaged or of other words."""
    try:
        settings, tensors = load_checkpoint(path, FORMAT)
        common = CommonStates(tensors["means"], tensors["shared"], float(settings["length"]))
        ends, states = tensors["ends"], tensors["states"]
    except (CheckpointError, KeyError):
        return None
    shape = (len(TEMPLATES), len(words), WORD_POSITIONS, ends.shape[-1])
    if tuple(states.shape) != shape or len(ends) != len(words):
        return None
    return common, Candidates(tuple(words), ends, states, torch.zeros(len(words)))


def save_states(path: Path, common: CommonStates, candidates: Candidates) -> None:
    """Keep states; a folder that cannot be written to keeps none."""
    tensors: dict[str, Tensor] = {
        "means": common.means,
        "shared": common.shared,
        "ends": candidates.ends,
        "states": candidates.states,
    }
    with suppress(CheckpointError):
        save_checkpoint(path, FORMAT, {"length": common.length}, tensors)
