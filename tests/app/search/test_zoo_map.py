"""Positions of models on the map."""

from pathlib import Path

import numpy as np
import pytest

import loradex.app.search.zoo_map
from loradex.app.paths import SHIPPED_ZOO, user_cache_dir
from loradex.app.search.zoo_map import (
    MapCache,
    ZooMap,
    concept_hues,
    encode_words,
    interpolate_positions,
    map_positions,
    tsne_positions,
)
from loradex.index import Model, Zoo


@pytest.fixture(scope="module")
def groups() -> np.ndarray:
    """Unit vectors of 4 groups of 30."""
    random = np.random.default_rng(0)
    vectors = np.repeat(random.normal(size=(4, 16)), 30, axis=0) + 0.2 * random.normal(size=(120, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def same_group_rate(positions: np.ndarray, others: np.ndarray, groups: np.ndarray, other_groups: np.ndarray) -> float:
    """How often the nearest of the others is of the same group."""
    distances = ((positions[:, None] - others[None]) ** 2).sum(-1)
    distances[distances == 0] = np.inf
    return float(np.mean(groups == other_groups[distances.argmin(1)]))


def test_models_that_draw_alike_lie_near_each_other(groups: np.ndarray) -> None:
    positions, number = tsne_positions(groups), np.repeat(range(4), 30)
    assert positions.shape == (120, 2) and positions.min() == 0 and positions.max() == 1
    assert same_group_rate(positions, positions, number, number) > 0.97
    assert np.array_equal(positions, tsne_positions(groups))


def test_new_models_are_interpolated_near_similar_ones(groups: np.ndarray) -> None:
    number, new = np.repeat(range(4), 30), np.arange(120) % 5 == 0
    positions = tsne_positions(groups[~new])
    assert (
        same_group_rate(
            interpolate_positions(groups[new], groups[~new], positions), positions, number[new], number[~new]
        )
        > 0.9
    )


def test_models_beyond_the_limit_are_interpolated(groups: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loradex.app.search.zoo_map, "MAX_TSNE_MODELS", 60)
    positions, number = map_positions(groups), np.repeat(range(4), 30)
    assert np.array_equal(positions[::2], tsne_positions(groups[::2]))
    assert same_group_rate(positions, positions, number, number) > 0.9


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_few_models_have_positions_too(groups: np.ndarray, count: int) -> None:
    positions = map_positions(groups[:count])
    assert positions.shape == (count, 2) and np.isfinite(positions).all()
    assert np.isfinite(interpolate_positions(groups[:2], groups[:count], positions)).all()


def test_words_are_encoded_once() -> None:
    assert encode_words(["b", "", "a", "b"]) == {"words": ["b", "a"], "of": [0, -1, 1, 0]}


def test_similar_concepts_have_similar_hues() -> None:
    angles = np.radians([0, 10, 120, 130, 240, 250])
    vectors = np.stack([np.cos(angles), np.sin(angles), np.zeros(6)], axis=1).astype(np.float32)
    hues = np.array(concept_hues(vectors, np.arange(6), 6))
    gaps = np.abs((hues[:, None] - hues + 180) % 360 - 180)
    assert gaps[[0, 2, 4], [1, 3, 5]].max() < 20 < 90 < gaps[[0, 0, 2], [2, 4, 4]].min()
    assert concept_hues(vectors, np.full(6, -1), 0) == [] and len(concept_hues(vectors, np.zeros(6, np.int64), 1)) == 1


def test_a_map_is_cached_and_follows_the_zoo(
    groups: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model(number: int) -> Model:
        return Model(
            f"{number:03}",
            "<img src=x>",
            "family",
            f"/loras/{number % 2}/a.safetensors",
            facts={"labels": [["dog", 0.9]]},
        )

    with Zoo.create(tmp_path / "zoo", "space", 16) as zoo:
        zoo.add([model(number) for number in range(100)], list(groups[:100]))
        zoo.add([Model("no vector", "x", "family")], [None])
        first = MapCache().get(zoo)
        assert len(first.models) == 100
        (cached,) = (user_cache_dir() / "maps").iterdir()
        with monkeypatch.context() as patch:
            patch.setattr(loradex.app.search.zoo_map, "map_positions", None)  # computing again would fail
            assert np.array_equal(MapCache().get(zoo).positions, first.positions)
        cached.write_bytes(cached.read_bytes()[:200])
        assert np.array_equal(MapCache().get(zoo).positions, first.positions)
        maps = MapCache()
        assert maps.get(zoo) is maps.get(zoo)
        zoo.add([model(100)], [groups[100]])
        assert len(maps.get(zoo).models) == 101 and len(list((user_cache_dir() / "maps").iterdir())) == 1
        document = maps.get(zoo).document()
    assert (
        document["concepts"]["words"] == ["dog"]
        and document["folders"]["words"] == ["loras/0", "loras/1"]
        and not any(document["drawn"])
    )


def test_the_shipped_zoo_is_mapped_by_what_it_draws() -> None:
    with Zoo.open(SHIPPED_ZOO, read_only=True) as zoo:
        shipped: ZooMap = MapCache().get(zoo)
    concepts = np.array([model.concept for model in shipped.models])
    twice = np.array([(concepts == concept).sum() > 1 for concept in concepts])
    distances = ((shipped.positions[:, None] - shipped.positions[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    near = concepts[distances.argsort(1)[:, :5]] == concepts[:, None]
    assert near.any(1)[twice].mean() > 0.8  # 0.88 when this was written, 0.95 in the space itself; chance is below 0.03
