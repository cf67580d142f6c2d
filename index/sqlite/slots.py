"""Slots: the numbers of stored positions, eight to a model, so that each tells the model and the kind of evidence."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loradex.index.evidence import CODES, Evidence

PER_MODEL: Final = 8  # never changed: catalogues and saved engines hold slots
KINDS: Final = {code: kind for kind, code in CODES.items()}

Keys = NDArray[np.int64]  # of models
Slots = NDArray[np.int64]


def slot_of(key: int, kind: Evidence) -> int:
    """Return the slot of a kind of evidence of a model."""
    return PER_MODEL * key + CODES[kind]


def keys_of(slots: Slots) -> Keys:
    """Return the keys (n,) of the models of slots (n,)."""
    return slots // PER_MODEL


def slots_of(keys: Keys, kinds: Iterable[Evidence]) -> Slots:
    """Return the slots of some kinds of evidence of models, ascending if the keys are."""
    codes = np.array(sorted(CODES[kind] for kind in kinds), np.int64)
    return (PER_MODEL * keys[:, None] + codes).ravel()


def kind_of(slot: int) -> Evidence:
    """Return the kind of evidence of a slot.

    Raises:
        LookupError: its code stands for none.
    """
    return KINDS[slot % PER_MODEL]
