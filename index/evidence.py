"""Kinds of evidence for what a model draws, and the position in the space that each gives a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from loradex.index.vectors import Vector


class Evidence(StrEnum):
    """How a model is known, the weightiest first."""

    PICTURE = "picture"  # what it draws, read from its weights by an expert
    WORDS = "words"  # the captions that it was trained with, read from its weights
    PREVIEW = "preview"  # the pictures beside its file
    METADATA = "metadata"  # names, tags and notes: it has no position


# The kinds that give a position, with the codes that stores write. A code is never reused.
CODES: Final[Mapping[Evidence, int]] = {Evidence.PICTURE: 0, Evidence.WORDS: 1, Evidence.PREVIEW: 2}
PLACED: Final = tuple(CODES)


@dataclass(frozen=True, slots=True)
class Position:
    """Where one kind of evidence puts a model in the space.

    Its score for a unit query ``q`` is ``scale * (vector @ q) + bias``: the cosine unless a calibration says otherwise.
    A query may have a scale of its own, by which the product is multiplied.

    Attributes:
        vector: (dim,), at length 1 in a zoo.
        scale: positive, how much a cosine tells.
        bias: less what the position says of everyday texts, so that scores of different models compare.
    """

    vector: Vector = field(repr=False)
    scale: float = 1.0
    bias: float = 0.0

    @property
    def is_calibrated(self) -> bool:
        """Whether its scores are log-odds, and not cosines."""
        return (self.scale, self.bias) != (1, 0)


Positions = Mapping[Evidence, Position]  # of one model


def evidence_of(positions: Positions) -> tuple[Evidence, ...]:
    """Return the kinds of evidence among some positions, the weightiest first."""
    return tuple(kind for kind in PLACED if kind in positions)


def to_bits(evidence: tuple[Evidence, ...]) -> int:
    """Return kinds of evidence as the bits of their codes."""
    return sum(1 << CODES[kind] for kind in evidence)


def from_bits(bits: int) -> tuple[Evidence, ...]:
    """Return the kinds of evidence of ``to_bits``.

    Raises:
        ValueError: a bit stands for no kind.
    """
    evidence = tuple(kind for kind in PLACED if bits >> CODES[kind] & 1)
    if to_bits(evidence) != bits:
        raise ValueError(f"evidence {bits!r}")
    return evidence
