"""The states of the usual candidates, kept in a folder for the next time."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.words.prompts import TEMPLATES, WORD_POSITIONS, Candidates

FORMAT: Final = "loradex-words-1"  # to be raised when the same words get other states


def cache_path(folder: Path, fingerprint: str, words: Sequence[str]) -> Path:
    """The file that holds the states of words, as the text encoder of a fingerprint makes them."""
    text = "\n".join((FORMAT, fingerprint, str(WORD_POSITIONS), *TEMPLATES, *words))
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.safetensors"


def load_candidates(path: Path, words: Sequence[str]) -> Candidates | None:
    """Load what ``save_candidates`` wrote; None if it is not there, damaged or of other words."""
    try:
        _, tensors = load_checkpoint(path, FORMAT)
        ends, states, handicaps = tensors["ends"], tensors["states"], tensors["handicaps"]
    except (CheckpointError, KeyError):
        return None
    shape = (len(TEMPLATES), len(words), WORD_POSITIONS, ends.shape[-1])
    whole = tuple(states.shape) == shape and len(ends) == len(handicaps) == len(words)
    return Candidates(tuple(words), ends, states, handicaps) if whole else None


def save_candidates(path: Path, candidates: Candidates) -> None:
    """Keep states; a folder that cannot be written to keeps none."""
    tensors: dict[str, Tensor] = {
        "ends": candidates.ends,
        "states": candidates.states,
        "handicaps": candidates.handicaps,
    }
    with suppress(CheckpointError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, FORMAT, {}, tensors)
