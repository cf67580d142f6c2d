"""What every engine promises, and how near those come that promise no more than to be near."""

import gc

import numpy as np
import pytest
from zoo_oracle import unit

import loradex.index.sqlite.engine
from loradex.index.sqlite.engine import ENGINES, Codes, Exact, ExactOnGpu, Mask, engine_for, has_gpu, joined
from loradex.index.sqlite.snapshot import Segment, Snapshot, State
from loradex.index.vectors import Vector

DIM = 40
Kind = type[Exact] | type[Codes]
KINDS = [
    pytest.param(kind, id=name, marks=pytest.mark.skipif(name == "gpu" and not has_gpu(), reason="no GPU"))
    for name, kind in ENGINES.items()
]


def units(n: int, seed: int = 0, dim: int = DIM) -> Vector:
    """Seeded unit vectors (n, dim)."""
    rows = np.random.default_rng(seed).normal(size=(n, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def clustered(n: int, dim: int, seed: int = 0) -> Vector:
    """Unit vectors (n, dim) around one centre for each hundred, as models of one concept are."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n // 100, dim))[rng.integers(0, n // 100, n)] + 0.5 * rng.normal(size=(n, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def masks(n: int) -> list[Mask | None]:
    """All rows, one in three, the last one, none."""
    last = np.zeros(n, np.bool_)
    last[n - 1 :] = True
    return [None, np.arange(n) % 3 == 1, last, np.zeros(n, np.bool_)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 300])
@pytest.mark.parametrize("count", [1, 5, 300, 1000])
def test_candidates_are_rows_of_the_mask(kind: Kind, n: int, count: int) -> None:
    """Each once, best first, as many as there are, and -1 where there are no more; one query or several."""
    engine = kind.of(units(n))
    assert (len(engine), engine.dim) == (n, DIM)
    for mask in masks(n):
        among = n if mask is None else int(mask.sum())
        for queries in (units(1, seed=1), units(25, seed=2)):
            scores, rows = engine.candidates(queries, count, mask)
            assert scores.shape == rows.shape == (len(queries), count)
            for line, found in zip(scores, rows, strict=True):
                real = found[found >= 0]
                assert len(real) == len(set(real.tolist())) == min(count, among)
                assert (found[: len(real)] >= 0).all() and (found[len(real) :] == -1).all()
                assert mask is None or mask[real].all()
                assert (np.diff(line[: len(real)]) <= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_of_an_engine_that_bounds_its_error(kind: Kind) -> None:
    """They are NumPy's best, and their scores as near to the cosines as it says."""
    vectors, queries = units(500), units(9, seed=3)
    engine = kind.of(vectors)
    if engine.slack is None:
        pytest.skip("it promises no bound")
    for mask in masks(500)[:3]:
        allowed = np.arange(500) if mask is None else np.flatnonzero(mask)
        for query, scores, rows in zip(queries, *engine.candidates(queries, 20, mask), strict=True):
            exact = vectors.astype(np.float64) @ query.astype(np.float64)
            real = rows[rows >= 0]
            assert real.tolist() == allowed[np.argsort(-exact[allowed], kind="stable")][:20].tolist()
            assert np.abs(scores[: len(real)] - exact[real]).max() <= engine.slack


@pytest.mark.parametrize("kind", KINDS)
def test_duplicates_are_all_there(kind: Kind) -> None:
    """Copies of one vector come before all others, each with the same score but for rounding."""
    vectors = np.concatenate([np.repeat(units(1), 30, axis=0), units(30, seed=4)])[::-1].copy()
    scores, rows = kind.of(vectors).candidates(units(1), 30)
    assert sorted(rows[0].tolist()) == list(range(30, 60))
    assert np.ptp(scores) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 200])
def test_restored_from_its_arrays(kind: Kind, n: int) -> None:
    """The same answers, to the last bit."""
    engine, queries = kind.of(units(n)), units(5, seed=5)
    arrays = engine.arrays()
    assert tuple(arrays) == engine.holds and {len(array) for array in arrays.values()} == {n}
    again = kind.restore({name: array.copy() for name, array in arrays.items()}, DIM)
    for mask in masks(n):
        for one, other in zip(engine.candidates(queries, 10, mask), again.candidates(queries, 10, mask), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_another_engine_are_refused(kind: Kind) -> None:
    """By an error that a cache takes for damage."""
    arrays = kind.of(units(10)).arrays()
    for name, sound in arrays.items():
        bad = [
            sound.astype(np.float64),
            sound[:-1] if len(arrays) > 1 else sound[:, :-1],
            sound.reshape(1, *sound.shape),
            np.float32(1),
        ]
        for array in bad:
            with pytest.raises((ValueError, TypeError)):
                kind.restore(arrays | {name: np.asarray(array)}, DIM)
        with pytest.raises(KeyError):
            kind.restore({other: array for other, array in arrays.items() if other != name}, DIM)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_outlive_their_engine(kind: Kind) -> None:
    """They are views of memory that is not given back while they are used, and cannot be written through."""
    held = kind.holds[0]
    expected = kind.of(units(3000)).arrays()[held].copy()
    views = [kind.of(units(3000)).arrays()[held] for _ in range(5)]
    gc.collect()
    others = [kind.of(units(3000, seed=6)) for _ in range(5)]
    assert len(others) == 5
    for view in views:
        np.testing.assert_array_equal(view, expected)
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0


@pytest.mark.parametrize("kind", KINDS)
def test_joined(kind: Kind) -> None:
    """Rows of several engines in one, in order, without those that a mask leaves out; engines that hold vectors join any."""
    first, second, third = units(100, seed=7), units(50, seed=8), units(1, seed=9)
    mask = np.arange(50) % 2 == 0
    together = joined(kind, [(kind.of(first), None), (Exact.of(second), mask), (kind.of(third), np.zeros(1, np.bool_))])
    expected = kind.of(np.concatenate([first, second[mask]]))
    assert isinstance(together, kind)
    for name in kind.holds:
        np.testing.assert_array_equal(together.arrays()[name], expected.arrays()[name])


def test_codes_are_small() -> None:
    """One bit a number and two factors, whichever way round they were made."""
    codes = Codes.of(units(100, dim=512)).arrays()["codes"]
    assert codes.nbytes == 100 * (512 // 8 + 8)
    np.testing.assert_array_equal(
        np.concatenate([Codes.of(units(100, dim=512)[half]).arrays()["codes"] for half in (slice(50), slice(50, 100))]),
        codes,
    )


@pytest.mark.parametrize("parts", [1, 3])
def test_recall_of_codes(parts: int) -> None:
    """Compared again by their vectors, at least 95 in 100 of the ten best of 20,000 are found, with exact cosines; with a filter too."""
    n, dim, k = 20_000, 128, 10
    vectors = clustered(n, dim)
    queries = vectors[:: n // 40] + 0.3 * units(40, seed=11, dim=dim) / dim**0.5
    queries = np.stack([unit(query) for query in queries])
    edges = np.linspace(0, n, parts + 1).astype(int)
    segments = tuple(
        Segment(Codes.of(vectors[start:end]), np.arange(start, end))
        for start, end in zip(edges, edges[1:], strict=False)
    )
    snapshot = Snapshot(State(1, b""), dim, segments)
    for allowed in (None, np.arange(0, n, 7)):
        within, masks = (np.arange(n), None) if allowed is None else (allowed, snapshot.masks_of(allowed))
        found = 0
        for query, (keys, scores, _) in zip(
            queries, snapshot.search(queries, k, masks, lambda keys: vectors[keys]), strict=True
        ):
            exact = vectors.astype(np.float64) @ query.astype(np.float64)
            best = within[np.argsort(-exact[within], kind="stable")[:k]]
            found += len(set(best.tolist()) & set(keys.tolist()))
            assert np.abs(scores - exact[keys]).max() <= 1e-6
            assert (np.diff(scores) <= 0).all() and len(keys) == k
        assert found >= 0.95 * k * len(queries)


def test_which_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number of vectors, unless one is asked for; a GPU's only where there is one."""
    large = loradex.index.sqlite.engine.CODES_FROM
    monkeypatch.setattr(loradex.index.sqlite.engine, "has_gpu", lambda: False)
    assert [engine_for(count) for count in (0, large - 1, large)] == [Exact, Exact, Codes]
    assert [engine_for(count, "gpu") for count in (0, large)] == [Exact, Codes]
    assert [engine_for(large, "exact"), engine_for(1, "codes")] == [Exact, Codes]
    monkeypatch.setattr(loradex.index.sqlite.engine, "has_gpu", lambda: True)
    assert [engine_for(count) for count in (0, large - 1, large)] == [Exact, Exact, ExactOnGpu]
    assert [engine_for(1, "gpu"), engine_for(large, "codes")] == [ExactOnGpu, Codes]
