"""Look-alikes by fingerprint: LoRAs that are re-saves, rescalings, lower ranks, checkpoints or merges of one another.

A cosine below zero counts as one above: it is that of a negated copy, or of a part that a merge takes away.

The thresholds were measured with ``python -m scripts.lookalikes`` (docs/experiments.md): unrelated LoRAs stay below
0.22, checkpoints and the halves of a merge lie above 0.58, and re-saves, even in eight bits, above 0.99.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loradex.retrieval.fingerprint import Fingerprint

SAME_COSINE: Final = 0.99  # from which two files hold one update, saved in different ways
RELATED_COSINE: Final = 0.4  # from which one LoRA was made from the other, or both from a third
PART_COSINE: Final = 0.15  # from which a LoRA may be a part of a merge
STRENGTH_TOLERANCE: Final = 0.02  # by which norms of one update differ between precisions
MAX_PARTS: Final = 8
MIN_EXPLAINED: Final = 0.9  # share of a merge's energy that its parts explain
MIN_PART_ENERGY: Final = 0.03  # share of that energy that each part brings
BLOCK_ROWS: Final = 1024  # compared at a time


class Relation(StrEnum):
    """How one LoRA relates to another."""

    SAME = "same update"
    RESCALED = "same update, other strength"
    NEGATED = "same update, negated"
    RELATED = "related: other rank, checkpoint or merge"


@dataclass(frozen=True, slots=True)
class Lookalike:
    """A LoRA that is like another.

    Attributes:
        index: its row in the index.
        cosine: of both updates, estimated; near -1 for a negated copy.
        strength: its norm over that of the LoRA it is compared with.
    """

    index: int
    cosine: float
    strength: float

    @property
    def relation(self) -> Relation:
        """The relation by cosine and strength."""
        if abs(self.cosine) < SAME_COSINE:
            return Relation.RELATED
        if self.cosine < 0:
            return Relation.NEGATED
        return Relation.SAME if abs(self.strength - 1) <= STRENGTH_TOLERANCE else Relation.RESCALED


@dataclass(frozen=True, slots=True)
class Merge:
    """A LoRA as a weighted sum of others.

    Attributes:
        weights: the weight of each part, by its row in the index.
        explained: the share of the LoRA's energy that the sum explains.
    """

    weights: dict[int, float]
    explained: float


class FingerprintIndex:
    """Fingerprints of many LoRAs, compared by exact scan."""

    def __init__(self, fingerprints: Sequence[Fingerprint]) -> None:
        """Stack the fingerprints; all indices in answers are rows of this sequence."""
        self.sketches: NDArray[np.float32] = (
            np.stack([fingerprint.sketch for fingerprint in fingerprints])
            if fingerprints
            else np.empty((0, 0), np.float32)
        )
        self.norms = np.array([fingerprint.norm for fingerprint in fingerprints])

    def find(self, query: Fingerprint, min_cosine: float = RELATED_COSINE) -> list[Lookalike]:
        """All look-alikes of a LoRA, most alike first."""
        if not len(self.norms):
            return []
        cosines = self.sketches @ query.sketch
        order = np.argsort(-np.abs(cosines), kind="stable")
        return [
            Lookalike(int(i), float(cosines[i]), float(self.norms[i]) / max(query.norm, 1e-30))
            for i in order
            if abs(cosines[i]) >= min_cosine
        ]

    def pairs(self, min_cosine: float = RELATED_COSINE) -> Iterator[tuple[int, Lookalike]]:
        """Yield every pair of look-alikes once: the lower index, and the other one compared with it."""
        for start in range(0, len(self.norms), BLOCK_ROWS):
            cosines = self.sketches[start : start + BLOCK_ROWS] @ self.sketches[start:].T
            for row, column in zip(*np.nonzero(np.triu(np.abs(cosines) >= min_cosine, 1)), strict=True):
                first, second = start + int(row), start + int(column)
                strength = float(self.norms[second] / max(self.norms[first], 1e-30))
                yield first, Lookalike(second, float(cosines[row, column]), strength)

    def find_merge(self, query: Fingerprint, leave_out: int = -1) -> Merge | None:
        """Find the LoRAs that ``query`` was merged from: unrelated ones that together explain nearly all of it.

        None if there are fewer than two, or if one is the same update. ``leave_out`` is the row of the query itself.
        """
        parts: list[int] = []
        for candidate in self.find(query, PART_COSINE):
            unrelated = all(
                abs(self.sketches[candidate.index] @ self.sketches[part]) < RELATED_COSINE for part in parts
            )
            if candidate.index != leave_out and unrelated and len(parts) < MAX_PARTS:
                parts.append(candidate.index)
        if len(parts) < 2 or abs(float(self.sketches[parts[0]] @ query.sketch)) >= SAME_COSINE:
            return None
        weights, _ = self.fit_weights(query, parts)
        min_energy = MIN_PART_ENERGY * query.norm**2
        parts = [part for part in parts if weights[part] ** 2 * self.norms[part] ** 2 >= min_energy]
        if len(parts) < 2:
            return None
        weights, explained = self.fit_weights(query, parts)
        return Merge(weights, explained) if explained >= MIN_EXPLAINED else None

    def fit_weights(self, query: Fingerprint, parts: list[int]) -> tuple[dict[int, float], float]:
        """Least-squares weights of ``parts`` for ``query``, and the share of its energy that their sum explains."""
        basis = self.sketches[parts].T
        solution = np.linalg.lstsq(basis, query.sketch, rcond=None)[0]
        explained = 1 - float(np.sum((query.sketch - basis @ solution) ** 2))
        weights = {
            part: float(share) * query.norm / max(float(self.norms[part]), 1e-30)
            for part, share in zip(parts, solution, strict=True)
        }
        return weights, explained
