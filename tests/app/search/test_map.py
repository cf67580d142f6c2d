"""Places of models on the map."""

from pathlib import Path

import numpy as np
import pytest

import loradex.app.search.zoo_map
from loradex.app.paths import SHIPPED_ZOO, own_cache
from loradex.app.search.zoo_map import Maps, ZooMap, hues_of, laid_out, placed, places_of, table_of
from loradex.index import FoundBy, Model, Zoo


@pytest.fixture(scope="module")
def groups() -> np.ndarray:
    """Unit vectors of 4 groups of 30."""
    random = np.random.default_rng(0)
    vectors = np.repeat(random.normal(size=(4, 16)), 30, axis=0) + 0.2 * random.normal(size=(120, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def of_one_group(places: np.ndarray, others: np.ndarray, groups: np.ndarray, of: np.ndarray) -> float:
    """How often the nearest of others is of the same group."""
    distances = ((places[:, None] - others[None]) ** 2).sum(-1)
    distances[distances == 0] = np.inf
    return float(np.mean(groups == of[distances.argmin(1)]))


def test_models_that_draw_alike_lie_near_each_other(groups: np.ndarray) -> None:
    places, number = laid_out(groups), np.repeat(range(4), 30)
    assert places.shape == (120, 2) and places.min() == 0 and places.max() == 1
    assert of_one_group(places, places, number, number) > 0.97
    assert np.array_equal(places, laid_out(groups))


def test_new_models_are_placed_among_their_like(groups: np.ndarray) -> None:
    number, new = np.repeat(range(4), 30), np.arange(120) % 5 == 0
    places = laid_out(groups[~new])
    assert of_one_group(placed(groups[new], groups[~new], places), places, number[new], number[~new]) > 0.9


def test_the_share_beyond_the_bound_is_placed(groups: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loradex.app.search.zoo_map, "LAID_OUT", 60)
    places, number = places_of(groups), np.repeat(range(4), 30)
    assert np.array_equal(places[::2], laid_out(groups[::2]))
    assert of_one_group(places, places, number, number) > 0.9


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_few_models_have_places_too(groups: np.ndarray, count: int) -> None:
    places = places_of(groups[:count])
    assert places.shape == (count, 2) and np.isfinite(places).all()
    assert np.isfinite(placed(groups[:2], groups[:count], places)).all()


def test_equal_words_are_told_once() -> None:
    assert table_of(["b", "", "a", "b"]) == {"words": ["b", "a"], "of": [0, -1, 1, 0]}


def test_like_concepts_have_like_hues() -> None:
    angles = np.radians([0, 10, 120, 130, 240, 250])
    vectors = np.stack([np.cos(angles), np.sin(angles), np.zeros(6)], axis=1).astype(np.float32)
    hues = np.array(hues_of(vectors, np.arange(6), 6))
    gaps = np.abs((hues[:, None] - hues + 180) % 360 - 180)
    assert gaps[[0, 2, 4], [1, 3, 5]].max() < 20 < 90 < gaps[[0, 0, 2], [2, 4, 4]].min()
    assert hues_of(vectors, np.full(6, -1), 0) == [] and len(hues_of(vectors, np.zeros(6, np.int64), 1)) == 1


def test_a_map_is_kept_and_follows_the_zoo(groups: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def model(number: int) -> Model:
        return Model(
            f"{number:03}",
            "<img src=x>",
            "family",
            FoundBy.WEIGHTS,
            f"/loras/{number % 2}/a.safetensors",
            facts={"labels": [["dog", 0.9]]},
        )

    with Zoo.create(tmp_path / "zoo", "space", 16) as zoo:
        zoo.add([model(number) for number in range(100)], list(groups[:100]))
        zoo.add([Model("no vector", "x", "family", FoundBy.METADATA)], [None])
        first = Maps().of(zoo)
        assert len(first.models) == 100
        (kept,) = (own_cache() / "maps").iterdir()
        with monkeypatch.context() as patch:
            patch.setattr(loradex.app.search.zoo_map, "places_of", None)  # computing again would fail
            assert np.array_equal(Maps().of(zoo).places, first.places)
        kept.write_bytes(kept.read_bytes()[:200])
        assert np.array_equal(Maps().of(zoo).places, first.places)
        maps = Maps()
        assert maps.of(zoo) is maps.of(zoo)
        zoo.add([model(100)], [groups[100]])
        assert len(maps.of(zoo).models) == 101 and len(list((own_cache() / "maps").iterdir())) == 1
        document = maps.of(zoo).document()
    assert (
        document["concepts"]["words"] == ["dog"]
        and document["folders"]["words"] == ["loras/0", "loras/1"]
        and not any(document["drawn"])
    )


def test_the_shipped_zoo_is_mapped_by_what_it_draws() -> None:
    with Zoo.open(SHIPPED_ZOO, read_only=True) as zoo:
        shipped: ZooMap = Maps().of(zoo)
    concepts = np.array([model.concept for model in shipped.models])
    twice = np.array([(concepts == concept).sum() > 1 for concept in concepts])
    distances = ((shipped.places[:, None] - shipped.places[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    near = concepts[distances.argsort(1)[:, :5]] == concepts[:, None]
    assert near.any(1)[twice].mean() > 0.8  # 0.88 when this was written, 0.95 in the space itself; chance is below 0.03
