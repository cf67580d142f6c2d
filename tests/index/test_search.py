"""Search against NumPy's brute force."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from zoo_oracle import DIM, SPACE, models, nearest, same, unit, vectors

from loradex.index import BadQuery, Zoo
from loradex.index.sqlite.engine import Exact
from loradex.index.sqlite.snapshot import Segment


@pytest.mark.parametrize("n", [1, 2, 17, 400])
@pytest.mark.parametrize("k", [0, 1, 10, 399, 5000])
def test_search_is_brute_force(zoo: Zoo, n: int, k: int) -> None:
    """Ids, order and cosines, of one query and of many."""
    state = dict(zip((f"m{i * 7919 % n:04}" for i in range(n)), vectors(n), strict=True))
    zoo.add(models(state), list(state.values()))
    queries = vectors(33, seed=1)
    together = zoo.search_many(queries, k)
    for query, hits in zip(queries, together, strict=True):
        assert same(hits, nearest(state, query, k))
        assert hits == zoo.search(query, k)  # to the last bit, though FAISS goes another way for a batch


def test_ties_are_in_order_of_id(zoo: Zoo) -> None:
    """Of many copies, those of the first ids, wherever the cut falls."""
    near, far = vectors(2)
    ids = [f"m{i * 31 % 300:03}" for i in range(300)]  # added out of order
    state = {id: near if int(id[1:]) % 3 else far for id in ids}
    zoo.add(models(state), list(state.values()))
    for k in (1, 5, 150, 200, 201, 299, 300):
        assert same(zoo.search(near, k), nearest(state, near, k))
        assert len({hit.score for hit in zoo.search(near, k)[:200]}) == 1


def test_grid_of_ties(zoo: Zoo) -> None:
    """Vectors of -1, 0 and 1, most of which tie with others that are no copies."""
    grid = np.array(np.meshgrid(*[[-1, 0, 1]] * 4)).reshape(4, -1).T
    grid = grid[np.any(grid, axis=1)]
    state = {f"m{i:02}": np.pad(row, (0, DIM - 4)).astype(np.float32) for i, row in enumerate(grid)}
    zoo.add(models(state), list(state.values()))
    for axis in range(4):
        query = np.eye(DIM, dtype=np.float32)[axis]
        for k in range(1, 81, 7):
            assert same(zoo.search(query, k), nearest(state, query, k))


def test_nearer_than_float32_tells() -> None:
    """Candidates that FAISS's float32 may swap come in the order of float64."""
    rng = np.random.default_rng(3)
    base = unit(rng.normal(size=256).astype(np.float32))
    crowd = np.stack([unit(base + rng.normal(size=256).astype(np.float32) * 1e-5) for _ in range(600)])
    segment = Segment(Exact.of(crowd), np.arange(600))
    exact = (crowd.astype(np.float64) * base.astype(np.float64)).sum(axis=1)
    for k in (1, 10, 100):
        ((keys, _, _),) = segment.search(base[None], k, None, lambda keys: crowd[keys])
        assert keys.tolist() == np.argsort(-exact, kind="stable")[:k].tolist()


def test_empty_zoo_and_no_queries(zoo: Zoo) -> None:
    """No models, no hits; no queries, no answers."""
    assert zoo.search(vectors(1)[0], 5) == []
    assert zoo.search_many(vectors(3), 5) == [[], [], []]
    assert zoo.search_many(vectors(0), 5) == []


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e30, 3e37])
def test_length_does_not_matter(zoo: Zoo, scale: float) -> None:
    """Vectors and queries of huge and tiny length lie where their direction says."""
    axes = np.eye(DIM, dtype=np.float32)
    zoo.add(models(["a", "b"]), (axes[:2] * np.float64(scale)).astype(np.float32))
    (hit,) = zoo.search((axes[1] * np.float64(scale)).astype(np.float32), 1)
    assert (hit.model.id, hit.score) == ("b", 1.0)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8"])
def test_any_number_type(zoo: Zoo, dtype: str) -> None:
    """Numbers of other types are taken by value."""
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
    """What is no direction in this space is refused, in an empty zoo too."""
    with pytest.raises(BadQuery, match="^query: expected .* found "):
        zoo.search(query, 1)


@pytest.mark.parametrize("k", [-1, 1.5, None, "3"])
def test_bad_number_of_hits(zoo: Zoo, k: int) -> None:
    """The number of hits is a whole number."""
    with pytest.raises(BadQuery, match="number of hits"):
        zoo.search(vectors(1)[0], k)


def test_metadata_of_hits_alone_is_read(folder: Path) -> None:
    """A search reads k rows of models, not all."""
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models(f"m{i:03}" for i in range(200)), vectors(200))
        zoo.search(vectors(1)[0], 1)  # fills the engine
        statements: list[str] = []
        with zoo._reading() as connection:
            connection.set_trace_callback(statements.append)
        zoo.search(vectors(1, seed=5)[0], 4)
        with zoo._reading() as connection:
            connection.set_trace_callback(None)
    (read,) = [statement for statement in statements if " FROM models " in statement]
    assert read.split(" IN ")[1].count(",") == 3
    assert len(statements) <= 6
