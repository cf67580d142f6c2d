"""Which LoRAs are one another's re-saves, rescalings, lower ranks, checkpoints or merges, by their fingerprints.

The thresholds were measured with ``python -m scripts.lookalikes`` (docs/experiments.md): strangers stay below 0.22, checkpoints and
halves of a merge lie above 0.58, and re-saves, of eight bits even, above 0.99.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loradex.retrieval.fingerprint import Fingerprint

SAME: Final = 0.99  # cosine from which two updates are one, saved in another way
RELATED: Final = 0.4  # cosine from which one was made from the other, or both from a third
SAME_STRENGTH: Final = 0.02  # by which norms of one update differ between precisions
FAINT: Final = 0.15  # cosine from which a LoRA may be a part of a merge
MOST_PARTS: Final = 8
EXPLAINED: Final = 0.9  # of a merge's energy, by its parts
PART: Final = 0.03  # of that energy, that the second part brings at least
BLOCK: Final = 1024  # rows compared at a time


class Relation(StrEnum):
    """How one LoRA is like another."""

    SAME = "same update"
    RESCALED = "same update, other strength"
    RELATED = "related: other rank, checkpoint or merge"


@dataclass(frozen=True, slots=True)
class Likeness:
    """A look-alike; ``strength`` is its norm over that of the LoRA it is compared with."""

    index: int
    cosine: float
    strength: float

    @property
    def relation(self) -> Relation:
        """What the cosine and the strength say."""
        if self.cosine < SAME:
            return Relation.RELATED
        return Relation.SAME if abs(self.strength - 1) <= SAME_STRENGTH else Relation.RESCALED


@dataclass(frozen=True, slots=True)
class Merge:
    """A LoRA that is about the weighted sum of others; ``explained`` is the share of its energy that they make up."""

    weights: dict[int, float]
    explained: float


class Lookalikes:
    """Fingerprints side by side."""

    def __init__(self, prints: Sequence[Fingerprint]) -> None:
        """Take the fingerprints; indices in all answers count them."""
        self.sketches: NDArray[np.float32] = (
            np.stack([found.sketch for found in prints]) if prints else np.empty((0, 0), np.float32)
        )
        self.norms = np.array([found.norm for found in prints])

    def of(self, one: Fingerprint, at_least: float = RELATED) -> list[Likeness]:
        """All that are like a LoRA, most like first."""
        if not len(self.norms):
            return []
        cosines = self.sketches @ one.sketch
        order = np.argsort(-cosines, kind="stable")
        return [
            Likeness(int(i), float(cosines[i]), float(self.norms[i]) / max(one.norm, 1e-30))
            for i in order
            if cosines[i] >= at_least
        ]

    def pairs(self, at_least: float = RELATED) -> Iterator[tuple[int, Likeness]]:
        """Every two that are alike, as the first's index and what the second, of a higher index, is to it."""
        for start in range(0, len(self.norms), BLOCK):
            cosines = self.sketches[start : start + BLOCK] @ self.sketches[start:].T
            for row, column in zip(*np.nonzero(np.triu(cosines >= at_least, 1)), strict=True):
                first, second = start + int(row), start + int(column)
                yield (
                    first,
                    Likeness(
                        second, float(cosines[row, column]), float(self.norms[second] / max(self.norms[first], 1e-30))
                    ),
                )

    def merge_of(self, one: Fingerprint, leave_out: int = -1) -> Merge | None:
        """What a LoRA was merged from, where strangers to each other make up nearly all of it and none alone does."""
        parts: list[int] = []
        for found in self.of(one, FAINT):
            alone = all(self.sketches[found.index] @ self.sketches[part] < RELATED for part in parts)
            if found.index != leave_out and alone and len(parts) < MOST_PARTS:
                parts.append(found.index)
        if len(parts) < 2 or float(self.sketches[parts[0]] @ one.sketch) >= SAME:
            return None
        weights, explained = self.fit(one, parts)
        kept = [part for part in parts if weights[part] ** 2 * self.norms[part] ** 2 >= PART * one.norm**2]
        if len(kept) < 2:
            return None
        weights, explained = self.fit(one, kept)
        return Merge(weights, explained) if explained >= EXPLAINED else None

    def fit(self, one: Fingerprint, parts: list[int]) -> tuple[dict[int, float], float]:
        """The weights of some LoRAs whose sum is nearest to a LoRA, and the share of its energy that the sum explains."""
        basis = self.sketches[parts].T
        found = np.linalg.lstsq(basis, one.sketch, rcond=None)[0]
        explained = 1 - float(np.sum((one.sketch - basis @ found) ** 2))
        return {
            part: float(share) * one.norm / max(float(self.norms[part]), 1e-30)
            for part, share in zip(parts, found, strict=True)
        }, explained
