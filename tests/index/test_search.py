"""Vector search against brute force in NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from loradex.index import BadQuery, Evidence, Filter, Position, Zoo
from tests.index.zoo_oracle import (
    DIM,
    KINDS,
    agree,
    models,
    nearest,
    random_positions,
    random_vectors,
    same,
    stores,
    unit,
)


@pytest.mark.parametrize("n", [1, 2, 17, 400])
@pytest.mark.parametrize("k", [0, 1, 10, 399, 5000])
def test_search_equals_brute_force(zoo: Zoo, n: int, k: int) -> None:
    """Ids, order and cosines of hits, for one query and for a batch."""
    state = dict(zip((f"m{i * 7919 % n:04}" for i in range(n)), random_vectors(n), strict=True))
    zoo.add(models(state), list(state.values()))
    queries = random_vectors(33, seed=1)
    for query, hits in zip(queries, zoo.search_many(queries, k), strict=True):
        assert same(hits, nearest(state, query, k))
        assert hits == zoo.search(query, k)  # to the last bit, though FAISS takes another path for a batch


def test_models_are_scored_as_by_search(zoo: Zoo) -> None:
    """To the last bit, whatever the length and the scale of the query: pages of a search then agree on ties."""
    ids = [f"m{number:03}" for number in range(200)]
    zoo.add(models([*ids, "unplaced"]), [*random_positions(200), None])
    listed = [*zoo.models()][::-1]
    for query, scale in zip(random_vectors(20, seed=2), np.random.default_rng(3).uniform(0.5, 2, 20), strict=True):
        for where in (Filter(), Filter(found_by=(Evidence.WORDS, Evidence.PREVIEW))):
            scored = zoo.score(listed, query, where, scale=scale)
            assert [hit.model.id for hit in scored] == sorted((hit.model.id for hit in scored), reverse=True)
            by_id = {hit.model.id: (hit, dict(hit.scores)) for hit in scored}
            searched = zoo.search(query, 999, where, scale=scale)
            assert by_id == {hit.model.id: (hit, dict(hit.scores)) for hit in searched}
            stored = zoo.positions_by_id(ids)
            for hit in (*scored, *searched):
                place = stored[hit.model.id][hit.found_by]
                assert list(hit.positions) == list(hit.scores) and hit.is_calibrated
                assert hit.positions[hit.found_by] == replace(place, vector=hit.vector)
                np.testing.assert_array_equal(hit.vector, place.vector)
    assert zoo.score([], random_vectors(1)[0]) == []
    with pytest.raises(BadQuery, match="query: expected"):
        zoo.score(listed, np.zeros(DIM))


def test_ties_are_in_order_of_id(zoo: Zoo) -> None:
    """Of equal vectors those with the first ids are hits, for any ``k``."""
    near, far = random_vectors(2)
    ids = [f"m{i * 31 % 300:03}" for i in range(300)]  # added out of order
    state = {id: near if int(id[1:]) % 3 else far for id in ids}
    zoo.add(models(state), list(state.values()))
    for k in (1, 5, 150, 200, 201, 299, 300):
        assert same(zoo.search(near, k), nearest(state, near, k))
        assert len({hit.score for hit in zoo.search(near, k)[:200]}) == 1


def test_ties_on_a_grid(zoo: Zoo) -> None:
    """Vectors of -1, 0 and 1, most of which have the same cosine as different vectors."""
    grid = np.array(np.meshgrid(*[[-1, 0, 1]] * 4)).reshape(4, -1).T
    grid = grid[np.any(grid, axis=1)]
    state = {f"m{i:02}": np.pad(row, (0, DIM - 4)).astype(np.float32) for i, row in enumerate(grid)}
    zoo.add(models(state), list(state.values()))
    for axis in range(4):
        query = np.eye(DIM, dtype=np.float32)[axis]
        for k in range(1, 81, 7):
            assert same(zoo.search(query, k), nearest(state, query, k))


SUBSETS = [(), *((kind,) for kind in KINDS), KINDS[:2], KINDS[1:], (Evidence.METADATA, Evidence.WORDS), KINDS]


@pytest.mark.parametrize("kinds", SUBSETS)
@pytest.mark.parametrize("k", [1, 10, 150, 5000])
def test_several_kinds_of_evidence(zoo: Zoo, kinds: tuple[Evidence, ...], k: int) -> None:
    """A model's score is the best of its positions by the kinds that the filter names; ``k`` counts models."""
    state = dict(zip((f"m{i:03}" for i in range(300)), random_positions(300), strict=True))
    zoo.add(models(state), list(state.values()))
    assert stores(zoo, state)
    queries, counted = random_vectors(9, seed=1), tuple(kind for kind in kinds or KINDS if kind in KINDS)
    where = Filter(found_by=kinds)
    for query, hits in zip(queries, zoo.search_many(queries, k, where), strict=True):
        assert same(hits, nearest(state, query, k, counted))
        assert agree(hits, state, query, counted)
        assert hits == zoo.search(query, k, where)
        assert [hit.model.id for hit in hits[:7]] == [hit.model.id for hit in zoo.search(query, 7, where)[:k]]


def test_models_with_as_many_kinds_as_there_are(zoo: Zoo) -> None:
    """All positions of the best models come before those of others: ``k`` models are found nevertheless."""
    query = random_vectors(1)[0]
    noise = random_vectors(120, seed=1)
    state = {
        f"m{i:02}": {
            kind: Position(unit(query) + np.float32(0.01 * i) * unit(noise[3 * i + number]), 20.0, -0.1 * number)
            for number, kind in enumerate(KINDS)
        }
        for i in range(40)
    }
    zoo.add(models(state), list(state.values()))
    for k in range(1, 42):
        assert same(zoo.search(query, k), nearest(state, query, k))


def test_ties_of_kinds(zoo: Zoo) -> None:
    """Of equal scores the weightiest evidence counts, and of equal models the first ids."""
    near, far = random_vectors(2)
    ids = [f"m{i * 31 % 90:02}" for i in range(90)]  # added out of order
    state = {id: {kind: Position(near) for kind in KINDS[int(id[1:]) % 3 :]} for id in ids} | {"x": far}
    zoo.add(models(state), list(state.values()))
    for k in (1, 5, 30, 89, 90, 91):
        hits = zoo.search(near, k)
        assert same(hits, nearest(state, near, k))
        assert [hit.found_by for hit in hits[:90]] == [KINDS[int(hit.model.id[1:]) % 3] for hit in hits[:90]]


def test_a_bias_may_outweigh_a_cosine(zoo: Zoo) -> None:
    """A position that is likely for anything ranks before a nearer one."""
    query = random_vectors(1)[0]
    zoo.add(
        models("abc"),
        [
            {Evidence.PICTURE: Position(query, 2.0, -1.5)},
            {Evidence.WORDS: Position(-query, 2.0, 2.75)},
            {Evidence.PREVIEW: Position(query, 1.0)},
        ],
    )
    hits = zoo.search(query, 3)
    assert [(hit.model.id, hit.found_by) for hit in hits] == [("c", KINDS[2]), ("b", KINDS[1]), ("a", KINDS[0])]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.75, 0.5], abs=1e-6)


def test_empty_zoo_and_no_queries(zoo: Zoo) -> None:
    """Without models there are no hits, without queries no lists of hits."""
    assert zoo.search(random_vectors(1)[0], 5) == []
    assert zoo.search_many(random_vectors(3), 5) == [[], [], []]
    assert zoo.search_many(random_vectors(0), 5) == []


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e30, 3e37])
def test_vectors_of_any_length(zoo: Zoo, scale: float) -> None:
    """Huge and tiny vectors and queries are normalized without overflow."""
    axes = np.eye(DIM, dtype=np.float32)
    zoo.add(models(["a", "b"]), (axes[:2] * np.float64(scale)).astype(np.float32))
    (hit,) = zoo.search((axes[1] * np.float64(scale)).astype(np.float32), 1)
    assert (hit.model.id, hit.score) == ("b", 1.0)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
def test_any_number_type(zoo: Zoo, dtype: str) -> None:
    """Vectors and queries of other number types are converted."""
    zoo.add(models(["a"]), np.full((1, DIM), 2, dtype))
    assert zoo.search(np.full(DIM, 3, dtype), 1)[0].score == pytest.approx(1)


@pytest.mark.parametrize(
    "query",
    [
        np.full(DIM, np.nan),
        np.full(DIM, -np.inf),
        np.array([np.inf] + [1] * (DIM - 1)),
        np.zeros(DIM),
        np.ones(DIM - 1),
        np.ones((1, DIM)),
        np.array(1.0),
        np.array(["1"] * DIM),
        np.ones(DIM, complex),
        np.array([None] * DIM),
    ],
)
def test_bad_queries(zoo: Zoo, query: NDArray[np.float64]) -> None:
    """A query that is not a direction in this space is refused, also in an empty zoo."""
    with pytest.raises(BadQuery, match="^query: expected .* found "):
        zoo.search(query, 1)


@pytest.mark.parametrize("k", [-1, 1.5, None, "3"])
def test_bad_number_of_hits(zoo: Zoo, k: int) -> None:
    """A number of hits that is not a whole number is refused."""
    with pytest.raises(BadQuery, match="number of hits"):
        zoo.search(random_vectors(1)[0], k)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_a_scale_weighs_cosines_against_biases(zoo: Zoo, scale: float) -> None:
    state = dict(zip((f"m{i:03}" for i in range(120)), random_positions(120, seed=5), strict=True))
    zoo.add(models(state), list(state.values()))
    queries = random_vectors(8, seed=6)
    many = zoo.search_many(queries, 20, scales=[scale] * len(queries))
    for query, hits in zip(queries, many, strict=True):
        assert same(hits, nearest(state, query, 20, scale=scale))
        assert hits == zoo.search(query, 20, scale=scale)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), "1", None])
def test_a_scale_is_a_positive_number(zoo: Zoo, scale: object) -> None:
    with pytest.raises(BadQuery, match="positive scale"):
        zoo.search(random_vectors(1)[0], scale=scale)  # type: ignore[arg-type]
