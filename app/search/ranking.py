"""Ranks hits by weights and by words in one list, and folds hits with the same update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loradex.index import FoundBy, Hit, Model
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lookalikes import SAME_COSINE

MIN_COPY_COSINE: Final = 0.9  # of the vectors of two files with the same update
RANK_CONSTANT: Final = 60  # of reciprocal rank fusion: the larger, the less the first ranks stand out


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A model found by a search.

    Attributes:
        score: the cosine with the query; 1 for a model that has no vector and was found by its words.
        matched: the evidence by which it was found, the weightiest first.
        probability: the probability that it draws what the query says; None if no expert of its family is known.
        copies: models with the same update, folded under this hit.
    """

    model: Model
    score: float
    matched: tuple[FoundBy, ...]
    probability: float | None = None
    copies: tuple[Model, ...] = field(default=())

    @property
    def found_by(self) -> FoundBy:
        """The weightiest evidence."""
        return self.matched[0]


def fuse(
    by_weights: Sequence[Hit], by_words: Sequence[Model], scores: Mapping[str, float], max_rank: int
) -> list[SearchHit]:
    """Merge two lists by reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009).

    Args:
        by_weights: hits by weights, best first; among equals they come first.
        by_words: models found by words, best first.
        scores: the cosines of those models found by words that are not in ``by_weights``.
        max_rank: the last rank by weights that counts for models found by words, so that a longer ``by_weights`` makes
            the answer longer and changes nothing else.
    """
    models = {hit.model.id: hit.model for hit in by_weights} | {model.id: model for model in by_words}
    word_ranks = {model.id: rank for rank, model in enumerate(by_words, 1)}
    weight_ranks = {
        hit.model.id: rank
        for rank, hit in enumerate(by_weights, 1)
        if rank <= max_rank or hit.model.id not in word_ranks
    }
    cosines = dict(scores) | {hit.model.id: hit.score for hit in by_weights}
    fused = {
        id: sum(1 / (RANK_CONSTANT + ranks[id]) for ranks in (weight_ranks, word_ranks) if id in ranks) for id in models
    }
    order = sorted(models, key=lambda id: (-fused[id], weight_ranks.get(id, len(models)), word_ranks.get(id, 0)))
    evidence = ((FoundBy.WEIGHTS, weight_ranks), (FoundBy.METADATA, word_ranks))
    matched = {id: tuple(found_by for found_by, ranks in evidence if id in ranks) for id in models}
    return [SearchHit(models[id], cosines.get(id, 1.0), matched[id]) for id in order]


def possible_copies(hits: Sequence[SearchHit], vectors: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Return the ids of the hits that may be copies: with a vector near another's, or without one.

    Only their fingerprints need to be compared.
    """
    candidates = [hit.model.id for hit in hits if hit.model.id not in vectors]
    with_vector = [hit.model.id for hit in hits if hit.model.id in vectors]
    if len(with_vector) > 1:
        matrix = np.stack([vectors[id] for id in with_vector])
        has_neighbour = (matrix @ matrix.T >= MIN_COPY_COSINE).sum(axis=1) > 1
        candidates += [id for id, near in zip(with_vector, has_neighbour, strict=True) if near]
    return candidates if len(candidates) > 1 else []


def fold_copies(hits: Sequence[SearchHit], fingerprints: Mapping[str, bytes]) -> list[SearchHit]:
    """Fold each hit that has the update of an earlier hit under that one, as its copy.

    Args:
        hits: best first.
        fingerprints: the stored fingerprints of those hits that may be copies, by id.
    """
    compared = [hit for hit in hits if hit.model.id in fingerprints]
    if len(compared) < 2:
        return list(hits)
    sketches = np.stack([Fingerprint.from_bytes(fingerprints[hit.model.id]).sketch for hit in compared])
    same_update = sketches @ sketches.T >= SAME_COSINE
    original: dict[str, str] = {}  # the first hit with the same update, by id
    for row, hit in enumerate(compared):
        if hit.model.id not in original:
            for other in np.flatnonzero(same_update[row]):
                original.setdefault(compared[other].model.id, hit.model.id)
    copies: dict[str, list[Model]] = {}
    for hit in compared:
        if original[hit.model.id] != hit.model.id:
            copies.setdefault(original[hit.model.id], []).append(hit.model)
    return [
        replace(hit, copies=tuple(copies.get(hit.model.id, ())))
        for hit in hits
        if original.get(hit.model.id, hit.model.id) == hit.model.id
    ]
