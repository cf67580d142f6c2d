"""Ranks hits by position and by words in one list, and folds hits with the same update."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loradex.app.models import FROM_WEIGHTS
from loradex.app.search.places import Place
from loradex.index import Evidence, Hit, Model
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lookalikes import SAME_COSINE

MIN_COPY_COSINE: Final = 0.9  # of the vectors of two files with the same update
# What having the words of a query counts for: right in nineteen of twenty cases (log-odds of 3), as people chose them.
# No score of a position that is not calibrated reaches it: it is a cosine, times the scale of the query, at most 2.
WORDS_SCORE: Final = 3.0
BLOCK: Final = 1000  # rows that are compared with all others at a time

Scores = Mapping[Evidence, float]  # of a model's positions


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A model found by a search.

    Attributes:
        scores: the score of each of its positions that the filter lets count; none for a model without such a position.
        matched: the kinds of evidence that agree with the query, the one that carries the hit first.
        is_calibrated: whether the best of the scores is log-odds, and not a cosine.
        place: the file that answers the query.
        probability: the probability that it draws what the query says; None if it is not known.
        copies: models with the same update, folded under this hit.
    """

    model: Model
    scores: Scores
    matched: tuple[Evidence, ...]
    is_calibrated: bool = False
    place: Place | None = None
    probability: float | None = None
    copies: tuple[Model, ...] = field(default=())

    @property
    def score(self) -> float | None:
        """The score of the evidence that carries the hit; None if that is metadata."""
        return None if self.found_by is Evidence.METADATA else max(self.scores.values())

    @property
    def found_by(self) -> Evidence:
        """The kind of evidence that carries the hit."""
        return self.matched[0]

    @property
    def name(self) -> str:
        """The name of the file that answers the query."""
        return self.place.name if self.place else self.model.name


def matching_evidence(scores: Scores, has_words: bool) -> tuple[Evidence, ...]:
    """Return the kinds of evidence that agree with a query, the best first.

    A position agrees if it is more likely right than wrong, so its score is positive. If nothing agrees, the best
    position has carried the hit.

    Args:
        scores: of the model's positions.
        has_words: whether the model was found by its words; if nothing was, it has a position.
    """
    best_first = sorted(scores, key=lambda kind: -scores[kind])
    agreeing = [kind for kind in best_first if scores[kind] > 0]
    by_words = [Evidence.METADATA] if has_words else []
    return tuple(agreeing + by_words or best_first[:1])


def fuse(
    by_position: Sequence[Hit], by_words: Sequence[Model], scored: Sequence[Hit] = (), is_whole: bool = True
) -> list[SearchHit]:
    """Merge hits by position and models found by words into one list, best first.

    All scores are log-odds. A model that has the words of the query counts for ``WORDS_SCORE``, to which its position
    adds if it agrees; one whose position disagrees is still found by its name. So words alone do not put a model before
    one that is more likely right by its position. Among equals those found by words come first, in their order.

    Args:
        by_position: hits by position, best first.
        by_words: models found by words, best first.
        scored: those models found by words that are not in ``by_position``, but have a position.
        is_whole: whether no more hits by position exist. If some do, models that might come after those are left out,
            so that a longer ``by_position`` makes the answer longer and changes nothing else.
    """
    models = {hit.model.id: hit.model for hit in by_position} | {model.id: model for model in by_words}
    hits = {hit.model.id: hit for hit in (*scored, *by_position)}
    word_ranks = {model.id: rank for rank, model in enumerate(by_words)}
    position_ranks = {hit.model.id: rank for rank, hit in enumerate(by_position)}
    worth = {id: hits[id].score if id in hits else 0.0 for id in models}
    worth |= {id: WORDS_SCORE + max(worth[id], 0.0) for id in word_ranks}
    last = -math.inf if is_whole or not by_position else by_position[-1].score
    kept = (id for id in models if id in position_ranks or worth[id] >= last)
    order = sorted(
        kept, key=lambda id: (-worth[id], word_ranks.get(id, len(models)), position_ranks.get(id, len(models)))
    )
    return [search_hit(models[id], hits.get(id), id in word_ranks) for id in order]


def search_hit(model: Model, hit: Hit | None, has_words: bool) -> SearchHit:
    """Return a model that was found by position, by words, or by both."""
    scores = hit.scores if hit else {}
    return SearchHit(model, scores, matching_evidence(scores, has_words), hit is not None and hit.is_calibrated)


def possible_copies(hits: Sequence[SearchHit], vectors: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Return the ids of the hits that may be copies. Only their fingerprints need to be compared.

    These are hits whose vector is near that of another hit by the same kind of evidence, and hits without a vector that
    was read from the weights.

    Args:
        hits: best first.
        vectors: the vector by the weightiest evidence of each hit that has one, by id.
    """
    candidates, by_kind = list[str](), {kind: list[str]() for kind in FROM_WEIGHTS}
    for hit in hits:
        is_read = hit.model.found_by in FROM_WEIGHTS and hit.model.id in vectors
        (by_kind[hit.model.found_by] if is_read else candidates).append(hit.model.id)
    for ids in by_kind.values():
        if len(ids) > 1:
            matrix = np.stack([vectors[id] for id in ids])
            candidates += [ids[row] for row, near in near_rows(matrix, MIN_COPY_COSINE) if len(near) > 1]
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
    original: dict[str, str] = {}  # the first hit with the same update, by id
    for row, same_update in near_rows(sketches, SAME_COSINE):
        if compared[row].model.id not in original:
            for other in same_update:
                original.setdefault(compared[other].model.id, compared[row].model.id)
    copies: dict[str, list[Model]] = {}
    for hit in compared:
        if original[hit.model.id] != hit.model.id:
            copies.setdefault(original[hit.model.id], []).append(hit.model)
    return [
        replace(hit, copies=tuple(copies.get(hit.model.id, ())))
        for hit in hits
        if original.get(hit.model.id, hit.model.id) == hit.model.id
    ]


def near_rows(matrix: NDArray[np.float32], min_cosine: float) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield each row of unit vectors (n, dim) with the rows, itself included, whose cosine reaches a bound."""
    for start in range(0, len(matrix), BLOCK):
        for row, near in enumerate(matrix[start : start + BLOCK] @ matrix.T >= min_cosine, start):
            yield row, np.flatnonzero(near)
