"""Candidates of every engine against NumPy, and the recall of codes."""

import gc

import numpy as np
import pytest

import loradex.index.sqlite.engine
from loradex.index.model import State
from loradex.index.sqlite.engine import (
    ENGINES,
    CodesEngine,
    EngineClass,
    ExactEngine,
    GpuEngine,
    Mask,
    concatenate,
    engine_for,
    has_gpu,
)
from loradex.index.sqlite.slots import slots_of
from loradex.index.sqlite.snapshot import Segment, Snapshot
from loradex.index.vectors import Vector, scored_queries, scored_rows
from tests.index.zoo_oracle import KINDS, unit

DIM = 40
ENGINE_CLASSES = [
    pytest.param(engine_class, id=name, marks=pytest.mark.skipif(name == "gpu" and not has_gpu(), reason="no GPU"))
    for name, engine_class in ENGINES.items()
]


def random_units(n: int, seed: int = 0, dim: int = DIM) -> Vector:
    """Random unit vectors (n, dim)."""
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def random_rows(n: int, seed: int = 0, dim: int = DIM) -> Vector:
    """Rows (n, dim + 1) of random unit vectors with different scales and biases."""
    rng = np.random.default_rng(seed + 1000)
    return scored_rows(random_units(n, seed, dim), rng.uniform(10, 30, n), rng.normal(0, 2, n))


def random_queries(n: int, seed: int = 0, dim: int = DIM) -> Vector:
    """Queries (n, dim + 1)."""
    return scored_queries(random_units(n, seed, dim))


def clustered_units(n: int, dim: int, seed: int = 0) -> Vector:
    """Random unit vectors (n, dim), a hundred around each centre, as models of one concept are."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n // 100, dim))[rng.integers(0, n // 100, n)] + 0.5 * rng.normal(size=(n, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def masks(n: int) -> list[Mask | None]:
    """Masks of all rows, one in three, the last one, and none."""
    last = np.zeros(n, np.bool_)
    last[n - 1 :] = True
    return [None, np.arange(n) % 3 == 1, last, np.zeros(n, np.bool_)]


@pytest.mark.parametrize("engine_class", ENGINE_CLASSES)
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 300])
@pytest.mark.parametrize("count", [1, 5, 300, 1000])
def test_candidates_are_rows_of_the_mask(engine_class: EngineClass, n: int, count: int) -> None:
    """Each row of the mask once, best first, then -1; for one query and for several."""
    engine = engine_class.from_vectors(random_rows(n))
    assert (len(engine), engine.dim) == (n, DIM)
    for mask in masks(n):
        n_allowed = n if mask is None else int(mask.sum())
        for queries in (random_queries(1, seed=1), random_queries(25, seed=2)):
            scores, rows = engine.candidates(queries, count, mask)
            assert scores.shape == rows.shape == (len(queries), count)
            for query_scores, query_rows in zip(scores, rows, strict=True):
                found = query_rows[query_rows >= 0]
                assert len(found) == len(set(found.tolist())) == min(count, n_allowed)
                assert (query_rows[: len(found)] >= 0).all() and (query_rows[len(found) :] == -1).all()
                assert mask is None or mask[found].all()
                assert (np.diff(query_scores[: len(found)]) <= 0).all()


@pytest.mark.parametrize("engine_class", ENGINE_CLASSES)
def test_bounded_errors(engine_class: EngineClass) -> None:
    """If an engine bounds its errors, candidates are those of NumPy, and scores are within the bound."""
    vectors, queries = random_rows(500), random_queries(9, seed=3)
    engine = engine_class.from_vectors(vectors)
    if engine.score_error is None:
        pytest.skip("no bound")
    for mask in masks(500)[:3]:
        allowed = np.arange(500) if mask is None else np.flatnonzero(mask)
        for query, scores, rows in zip(queries, *engine.candidates(queries, 20, mask), strict=True):
            exact = vectors.astype(np.float64) @ query.astype(np.float64)
            found = rows[rows >= 0]
            assert found.tolist() == allowed[np.argsort(-exact[allowed], kind="stable")][:20].tolist()
            assert np.abs(scores[: len(found)] - exact[found]).max() <= engine.score_error


@pytest.mark.parametrize("engine_class", ENGINE_CLASSES)
def test_duplicates(engine_class: EngineClass) -> None:
    """All copies of a vector come before other vectors, with the same score but for rounding."""
    vectors = np.concatenate([np.repeat(random_units(1), 30, axis=0), random_units(30, seed=4)])[::-1].copy()
    scored = scored_rows(vectors, np.full(60, 20), np.full(60, -1.5))
    scores, rows = engine_class.from_vectors(scored).candidates(random_queries(1), 30)
    assert sorted(rows[0].tolist()) == list(range(30, 60))
    assert np.ptp(scores) < 1e-5


@pytest.mark.parametrize("engine_class", ENGINE_CLASSES)
@pytest.mark.parametrize("n", [0, 1, 200])
def test_restored_from_arrays(engine_class: EngineClass, n: int) -> None:
    """An engine made from the arrays of another has the same candidates, to the last bit."""
    engine, queries = engine_class.from_vectors(random_rows(n)), random_queries(5, seed=5)
    arrays = engine.arrays()
    assert tuple(arrays) == engine.array_names and {len(array) for array in arrays.values()} == {n}
    restored = engine_class.from_arrays({name: array.copy() for name, array in arrays.items()}, DIM)
    for mask in masks(n):
        for expected, actual in zip(
            engine.candidates(queries, 10, mask), restored.candidates(queries, 10, mask), strict=True
        ):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("engine_class", ENGINE_CLASSES)
def test_wrong_arrays_are_refused(engine_class: EngineClass) -> None:
    """By an error that ``saved_engines`` treats as damage."""
    arrays = engine_class.from_vectors(random_rows(10)).arrays()
    for name, sound in arrays.items():
        bad = [
            sound.astype(np.float64),
            sound[:-1] if len(arrays) > 1 else sound[:, :-1],
            sound.reshape(1, *sound.shape),
            np.float32(1),
        ]
        for array in bad:
            with pytest.raises((ValueError, TypeError)):
                engine_class.from_arrays(arrays | {name: np.asarray(array)}, DIM)
        with pytest.raises(KeyError):
            engine_class.from_arrays({other: array for other, array in arrays.items() if other != name}, DIM)


@pytest.mark.parametrize("engine_class", ENGINE_CLASSES)
def test_arrays_outlive_their_engine(engine_class: EngineClass) -> None:
    """They are read-only views that keep the memory of the engine alive."""
    held = engine_class.array_names[0]
    expected = engine_class.from_vectors(random_rows(3000)).arrays()[held].copy()
    views = [engine_class.from_vectors(random_rows(3000)).arrays()[held] for _ in range(5)]
    gc.collect()
    others = [engine_class.from_vectors(random_rows(3000, seed=6)) for _ in range(5)]
    assert len(others) == 5
    for view in views:
        np.testing.assert_array_equal(view, expected)
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0


@pytest.mark.parametrize("engine_class", ENGINE_CLASSES)
def test_concatenate(engine_class: EngineClass) -> None:
    """Rows of engines of the class and of exact ones, in order, without those that a mask leaves out."""
    first, second, third = random_rows(100, seed=7), random_rows(50, seed=8), random_rows(1, seed=9)
    mask = np.arange(50) % 2 == 0
    joined = concatenate(
        engine_class,
        [
            (engine_class.from_vectors(first), None),
            (ExactEngine.from_vectors(second), mask),
            (engine_class.from_vectors(third), np.zeros(1, np.bool_)),
        ],
    )
    expected = engine_class.from_vectors(np.concatenate([first, second[mask]]))
    assert isinstance(joined, engine_class)
    for name in engine_class.array_names:
        np.testing.assert_array_equal(joined.arrays()[name], expected.arrays()[name])


def test_error_of_rows_of_any_length() -> None:
    """The bound grows with the longest row, and holds for rows that cancel out."""
    units, queries = random_units(300, dim=512), random_queries(9, seed=3, dim=512)
    for scale, bias in ((1, 0), (1e-3, 0), (20, 3), (1e6, 0), (1, -1e6), (1e6, -1e6)):
        rows = scored_rows(units, np.full(300, scale), np.full(300, bias))
        engine = ExactEngine.from_vectors(rows)
        exact = rows.astype(np.float64) @ queries.astype(np.float64).T
        assert engine.score_error == pytest.approx(1.01 * 513 * 2.0**-24 * (scale + abs(bias)), rel=1e-3)
        for number, (scores, found) in enumerate(zip(*engine.candidates(queries, 300), strict=True)):
            assert np.abs(scores - exact[found, number]).max() <= engine.score_error


@pytest.mark.parametrize("masked", [False, True])
def test_codes_add_their_bias(masked: bool) -> None:
    """FAISS's score of a code is that of the code without a bias, and the bias, in both ways of scanning."""
    units, biases = random_units(400), np.random.default_rng(1).normal(0, 5, 400).astype(np.float32)
    query = random_units(1, seed=2)

    def scores(biases: Vector) -> Vector:
        engine = CodesEngine.from_vectors(scored_rows(units, np.full(400, 20), biases))
        index = engine._index if masked else engine._fast_index
        found, rows = index.search(query, 400)
        return np.asarray(found[0][np.argsort(rows[0])])

    np.testing.assert_allclose(scores(biases), scores(np.zeros_like(biases)) + biases, rtol=0, atol=1e-4)


def test_codes_are_small() -> None:
    """One bit per number and two factors, the same if the vectors are encoded in parts."""
    rows = random_rows(100, dim=512)
    codes = CodesEngine.from_vectors(rows).arrays()["codes"]
    assert codes.nbytes == 100 * (512 // 8 + 8)
    halves = [CodesEngine.from_vectors(rows[half]).arrays()["codes"] for half in (slice(50), slice(50, 100))]
    np.testing.assert_array_equal(np.concatenate(halves), codes)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("scale", "spread", "kinds"), [(1, 0, 1), (20, 0, 1), (20, 2, 1), (20, 1.5, 2)])
def test_recall_of_codes(parts: int, scale: float, spread: float, kinds: int) -> None:
    """At least 95 % of the ten best models of 20,000 rows are found, with exact scores, with and without a filter."""
    n, dim, k = 20_000, 128, 10
    vectors, chance = clustered_units(n, dim), np.random.default_rng(2)
    rows = scored_rows(vectors, np.full(n, scale), chance.normal(0, spread, n))
    queries = vectors[:: n // 40] + 0.3 * random_units(40, seed=11, dim=dim) / dim**0.5
    queries = scored_queries(np.stack([unit(query) for query in queries]))
    slots, edges = slots_of(np.arange(n // kinds), KINDS[:kinds]), np.linspace(0, n, parts + 1).astype(int)
    segments = tuple(
        Segment(CodesEngine.from_vectors(rows[start:end]), slots[start:end])
        for start, end in zip(edges, edges[1:], strict=False)
    )
    snapshot = Snapshot(State(1, b""), dim, segments)
    for allowed in (np.arange(n // kinds), np.arange(0, n // kinds, 7)):
        masks = None if len(allowed) == n // kinds else snapshot.masks_of(slots_of(allowed, KINDS[:kinds]))
        n_found = 0
        for query, (found, scores) in zip(
            queries, snapshot.search(queries, k, masks, lambda of: rows[np.searchsorted(slots, of)]), strict=True
        ):
            exact = (rows.astype(np.float64) @ query.astype(np.float64)).reshape(-1, kinds)
            best = allowed[np.argsort(-exact[allowed].max(axis=1), kind="stable")[:k]]
            n_found += len(set(best.tolist()) & set((found // 8).tolist()))
            assert np.abs(scores - exact[found // 8, found % 8]).max() <= 1e-5
            assert (np.diff(scores) <= 0).all() and len(found) == len(set((found // 8).tolist())) == k
        assert n_found >= 0.95 * k * len(queries)


def test_engine_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine depends on the number of vectors, unless a kind is vectors, and on whether there is a GPU."""
    threshold = loradex.index.sqlite.engine.CODES_FROM
    monkeypatch.setattr(loradex.index.sqlite.engine, "has_gpu", lambda: False)
    assert [engine_for(count) for count in (0, threshold - 1, threshold)] == [ExactEngine, ExactEngine, CodesEngine]
    assert [engine_for(count, "gpu") for count in (0, threshold)] == [ExactEngine, CodesEngine]
    assert [engine_for(threshold, "exact"), engine_for(1, "codes")] == [ExactEngine, CodesEngine]
    monkeypatch.setattr(loradex.index.sqlite.engine, "has_gpu", lambda: True)
    assert [engine_for(count) for count in (0, threshold - 1, threshold)] == [ExactEngine, ExactEngine, GpuEngine]
    assert [engine_for(1, "gpu"), engine_for(threshold, "codes")] == [GpuEngine, CodesEngine]
