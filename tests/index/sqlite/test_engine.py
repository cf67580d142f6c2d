"""Candidates of every engine against NumPy, and the recall of codes."""

import gc

import numpy as np
import pytest
from zoo_oracle import unit

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
from loradex.index.sqlite.snapshot import Segment, Snapshot
from loradex.index.vectors import Vector

DIM = 40
ENGINE_CLASSES = [
    pytest.param(engine_class, id=name, marks=pytest.mark.skipif(name == "gpu" and not has_gpu(), reason="no GPU"))
    for name, engine_class in ENGINES.items()
]


def random_units(n: int, seed: int = 0, dim: int = DIM) -> Vector:
    """Random unit vectors (n, dim)."""
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


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
    engine = engine_class.from_vectors(random_units(n))
    assert (len(engine), engine.dim) == (n, DIM)
    for mask in masks(n):
        n_allowed = n if mask is None else int(mask.sum())
        for queries in (random_units(1, seed=1), random_units(25, seed=2)):
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
    vectors, queries = random_units(500), random_units(9, seed=3)
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
    scores, rows = engine_class.from_vectors(vectors).candidates(random_units(1), 30)
    assert sorted(rows[0].tolist()) == list(range(30, 60))
    assert np.ptp(scores) < 1e-6


@pytest.mark.parametrize("engine_class", ENGINE_CLASSES)
@pytest.mark.parametrize("n", [0, 1, 200])
def test_restored_from_arrays(engine_class: EngineClass, n: int) -> None:
    """An engine made from the arrays of another has the same candidates, to the last bit."""
    engine, queries = engine_class.from_vectors(random_units(n)), random_units(5, seed=5)
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
    arrays = engine_class.from_vectors(random_units(10)).arrays()
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
    expected = engine_class.from_vectors(random_units(3000)).arrays()[held].copy()
    views = [engine_class.from_vectors(random_units(3000)).arrays()[held] for _ in range(5)]
    gc.collect()
    others = [engine_class.from_vectors(random_units(3000, seed=6)) for _ in range(5)]
    assert len(others) == 5
    for view in views:
        np.testing.assert_array_equal(view, expected)
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0


@pytest.mark.parametrize("engine_class", ENGINE_CLASSES)
def test_concatenate(engine_class: EngineClass) -> None:
    """Rows of engines of the class and of exact ones, in order, without those that a mask leaves out."""
    first, second, third = random_units(100, seed=7), random_units(50, seed=8), random_units(1, seed=9)
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


def test_codes_are_small() -> None:
    """One bit per number and two factors, the same if the vectors are encoded in parts."""
    codes = CodesEngine.from_vectors(random_units(100, dim=512)).arrays()["codes"]
    assert codes.nbytes == 100 * (512 // 8 + 8)
    np.testing.assert_array_equal(
        np.concatenate(
            [
                CodesEngine.from_vectors(random_units(100, dim=512)[half]).arrays()["codes"]
                for half in (slice(50), slice(50, 100))
            ]
        ),
        codes,
    )


@pytest.mark.parametrize("parts", [1, 3])
def test_recall_of_codes(parts: int) -> None:
    """At least 95 % of the ten best of 20,000 are found, with exact cosines, with and without a filter."""
    n, dim, k = 20_000, 128, 10
    vectors = clustered_units(n, dim)
    queries = vectors[:: n // 40] + 0.3 * random_units(40, seed=11, dim=dim) / dim**0.5
    queries = np.stack([unit(query) for query in queries])
    edges = np.linspace(0, n, parts + 1).astype(int)
    segments = tuple(
        Segment(CodesEngine.from_vectors(vectors[start:end]), np.arange(start, end))
        for start, end in zip(edges, edges[1:], strict=False)
    )
    snapshot = Snapshot(State(1, b""), dim, segments)
    for allowed in (None, np.arange(0, n, 7)):
        searched, masks = (np.arange(n), None) if allowed is None else (allowed, snapshot.masks_of(allowed))
        n_found = 0
        for query, (keys, scores, _) in zip(
            queries, snapshot.search(queries, k, masks, lambda keys: vectors[keys]), strict=True
        ):
            exact = vectors.astype(np.float64) @ query.astype(np.float64)
            best = searched[np.argsort(-exact[searched], kind="stable")[:k]]
            n_found += len(set(best.tolist()) & set(keys.tolist()))
            assert np.abs(scores - exact[keys]).max() <= 1e-6
            assert (np.diff(scores) <= 0).all() and len(keys) == k
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
