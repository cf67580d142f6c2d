"""One list of hits by position and by words, against the formula; and hits that may be copies."""

import numpy as np
import pytest

from loradex.app.search.ranking import (
    WORDS_SCORE,
    SearchHit,
    fold_copies,
    fuse,
    matching_evidence,
    near_rows,
    possible_copies,
)
from loradex.index import Evidence, Hit, Model, Position

PICTURE, WORDS, PREVIEW, METADATA = Evidence


def model(id: str, *evidence: Evidence) -> Model:
    return Model(id, id, "f", evidence=evidence)


def hit(id: str, score: float, kind: Evidence = PICTURE) -> Hit:
    return Hit(model(id, kind), score, kind, {kind: score}, {kind: Position(np.zeros(2, np.float32), 2.0)})


def order(hits: list[SearchHit]) -> list[str]:
    return [hit.model.id for hit in hits]


def test_words_count_as_a_score_to_which_a_position_adds() -> None:
    """``cheese`` has the word in its tags, but draws something else; ``pie`` has it too, and draws it."""
    by_position = [hit("pizza", WORDS_SCORE + 3), hit("pie", 1), hit("plate", 0.5), hit("cheese", -2), hit("camel", -3)]
    by_words = [model("named"), model("cheese", PICTURE), model("pie", PICTURE)]
    hits = fuse(by_position, by_words)
    assert order(hits) == ["pizza", "pie", "named", "cheese", "plate", "camel"]
    assert [hit.matched for hit in hits] == [
        (PICTURE,),
        (PICTURE, METADATA),
        (METADATA,),
        (METADATA,),
        (PICTURE,),
        (PICTURE,),
    ]
    assert [hit.score for hit in hits] == [WORDS_SCORE + 3, 1, None, None, 0.5, -3]
    assert fold_copies(hits, {}) == hits


def test_models_that_may_come_after_unknown_hits_are_left_out() -> None:
    by_position = [hit("a", WORDS_SCORE + 2), hit("b", WORDS_SCORE + 1)]
    by_words, scored = [model("x"), model("y")], [hit("y", 1.5, PREVIEW)]
    assert order(fuse(by_position, by_words, scored, is_whole=False)) == ["a", "y", "b"]
    assert order(fuse(by_position, by_words, scored)) == ["a", "y", "b", "x"]
    assert order(fuse([], by_words, scored, is_whole=False)) == ["y", "x"]


def test_a_longer_list_by_position_only_appends() -> None:
    """Pages follow each other: searches of 200 models, 30 of which have the words, some without a position."""
    random = np.random.default_rng(0)
    for _ in range(40):
        scores = np.sort(random.normal(1, 2, 200).round(1))[::-1]  # with ties
        by_position = [hit(f"{i:03}", float(score)) for i, score in enumerate(scores)]
        named = [by_position[i].model for i in random.permutation(200)[:25]]
        by_words = [*named, *(model(f"named {i}") for i in range(5))]
        known = [hit for hit in by_position if hit.model in named]
        whole = [(hit.model.id, hit.matched) for hit in fuse(by_position, by_words, known)]
        assert len(whole) == 205
        for count in (1, 30, 120):
            part = [(hit.model.id, hit.matched) for hit in fuse(by_position[:count], by_words, known, is_whole=False)]
            assert len(part) >= count and part == whole[: len(part)]


@pytest.mark.parametrize(
    ("scores", "has_words", "expected"),
    [
        ({PICTURE: 1.0, WORDS: 3.0, PREVIEW: -1.0}, False, (WORDS, PICTURE)),
        ({PICTURE: 1.0, WORDS: -3.0}, True, (PICTURE, METADATA)),
        ({PICTURE: -1.0, PREVIEW: -0.5}, False, (PREVIEW,)),  # nothing agrees: what carried the hit
        ({PICTURE: -1.0}, True, (METADATA,)),
        ({}, True, (METADATA,)),
    ],
)
def test_matching_evidence(scores: dict[Evidence, float], has_words: bool, expected: tuple[Evidence, ...]) -> None:
    assert matching_evidence(scores, has_words) == expected


def test_possible_copies_are_near_by_the_same_kind() -> None:
    """A preview says nothing of the update, so files known by it alone are compared as those without a vector."""
    same, other = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    kinds = {"a": PICTURE, "b": PICTURE, "c": PICTURE, "d": WORDS, "e": WORDS, "f": PREVIEW, "g": METADATA}
    hits = [SearchHit(model(id, *(() if kind is METADATA else (kind,))), {}, (METADATA,)) for id, kind in kinds.items()]
    vectors = {"a": same, "b": other, "c": same, "d": same, "e": other, "f": same}
    assert sorted(possible_copies(hits, vectors)) == ["a", "c", "f", "g"]
    assert possible_copies(hits[1:5], vectors) == []


def test_near_rows_equal_the_whole_product() -> None:
    matrix = np.random.default_rng(0).normal(size=(2300, 3)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    whole = matrix @ matrix.T >= 0.99
    rows = dict(near_rows(matrix, 0.99))
    assert list(rows) == list(range(2300))
    differing = sum(len(np.setxor1d(np.flatnonzero(whole[row]), near)) for row, near in rows.items())
    assert differing <= 4  # sums of another order
