"""One list of hits out of two, and near-copies under one hit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loradex.index import FoundBy, Hit, Model
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lookalikes import SAME

NEAR: Final = 0.9  # cosine of the vectors of one update, saved twice, at the least
EVEN: Final = 60  # of reciprocal rank fusion: how little the first ranks stand out


@dataclass(frozen=True, slots=True)
class Found:
    """One hit.

    Attributes:
        score: the cosine with the query; 1 for a model without a vector that was found by its words.
        matched: the ways in which it was found.
        probability: how likely it is what was asked for, where that is known.
        copies: models with the same update, which are folded under this one.
    """

    model: Model
    score: float
    matched: tuple[FoundBy, ...]
    probability: float | None = None
    copies: tuple[Model, ...] = field(default=())

    @property
    def found_by(self) -> FoundBy:
        """What its place among the hits rests on first."""
        return self.matched[0]


def fused(by_weights: Sequence[Hit], by_words: Sequence[Model], scores: Mapping[str, float], most: int) -> list[Found]:
    """Two lists, best first, as one by reciprocal ranks (Cormack, Clarke and Büttcher, SIGIR 2009); of equals, those by weights come first.

    ``scores`` are the cosines of models found by words that are not in the first list. Of those found by words, ranks by weights count up to
    ``most``, so that a longer first list makes the answer longer and changes nothing else.
    """
    models = {hit.model.id: hit.model for hit in by_weights} | {model.id: model for model in by_words}
    words = {model.id: rank for rank, model in enumerate(by_words, 1)}
    weights = {
        hit.model.id: rank for rank, hit in enumerate(by_weights, 1) if rank <= most or hit.model.id not in words
    }
    cosines = dict(scores) | {hit.model.id: hit.score for hit in by_weights}
    values = {id: sum(1 / (EVEN + ranks[id]) for ranks in (weights, words) if id in ranks) for id in models}
    order = sorted(models, key=lambda id: (-values[id], weights.get(id, len(models)), words.get(id, 0)))
    ways = {
        id: tuple(way for way, ranks in ((FoundBy.WEIGHTS, weights), (FoundBy.METADATA, words)) if id in ranks)
        for id in models
    }
    return [Found(models[id], cosines.get(id, 1.0), ways[id]) for id in order]


def may_be_copies(hits: Sequence[Found], vectors: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """The ids of those hits whose vector lies near another's, or that have none: only they need be compared by all of their weights."""
    placed = [hit.model.id for hit in hits if hit.model.id in vectors]
    suspects = [hit.model.id for hit in hits if hit.model.id not in vectors]
    if len(placed) > 1:
        table = np.stack([vectors[id] for id in placed])
        near = (table @ table.T >= NEAR).sum(axis=1) > 1
        suspects += [id for id, other in zip(placed, near, strict=True) if other]
    return suspects if len(suspects) > 1 else []


def folded(hits: Sequence[Found], prints: Mapping[str, bytes]) -> list[Found]:
    """Hits of which those with the update of an earlier one are its copies."""
    known = [hit for hit in hits if hit.model.id in prints]
    if len(known) < 2:
        return list(hits)
    sketches = np.stack([Fingerprint.from_bytes(prints[hit.model.id]).sketch for hit in known])
    same = sketches @ sketches.T >= SAME
    head_of: dict[str, str] = {}
    for row, hit in enumerate(known):
        if hit.model.id not in head_of:
            head_of |= {
                known[i].model.id: hit.model.id for i in np.flatnonzero(same[row]) if known[i].model.id not in head_of
            }
    copies: dict[str, list[Model]] = {}
    for hit in known:
        if head_of[hit.model.id] != hit.model.id:
            copies.setdefault(head_of[hit.model.id], []).append(hit.model)
    return [
        replace(hit, copies=tuple(copies.get(hit.model.id, ())))
        for hit in hits
        if head_of.get(hit.model.id, hit.model.id) == hit.model.id
    ]
