"""Positions by several kinds of evidence in Milvus: candidates by model, and changes that were cut short."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loradex.index import Evidence, Filter, KnownFile, Position, ZooUnreachable
from loradex.index.evidence import PLACED
from loradex.index.milvus import position_table, table
from loradex.index.milvus.zoo import MilvusZoo
from tests.index.zoo_oracle import DIM, SPACE, model, models, random_vectors, unit

Places = dict[Evidence, Position]


@pytest.fixture
def milvus(folder: Path) -> Iterator[MilvusZoo]:
    with MilvusZoo.create(folder, SPACE, DIM) as zoo:
        yield zoo


def places_of(number: int) -> Places:
    """Positions of a model by the kinds whose bits its number has, so that some models have none."""
    rng = np.random.default_rng(number)
    return {
        kind: Position(unit(vector), float(rng.uniform(0.1, 30)), float(rng.normal(0, 10)))
        for bit, (kind, vector) in enumerate(zip(PLACED, random_vectors(3, seed=number), strict=True))
        if number >> bit & 1
    }


def best_scores(places: dict[str, Places], query: Any, kinds: tuple[Evidence, ...]) -> list[tuple[str, float]]:
    """The models that have one of these kinds and their best scores by brute force in float64, best first."""
    wide = unit(query).astype(np.float64)
    scores = {
        id: max(each.scale * float(each.vector.astype(np.float64) @ wide) + each.bias for each in counted)
        for id, of_model in places.items()
        if (counted := [place for kind, place in of_model.items() if kind in kinds])
    }
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


@pytest.mark.parametrize("kinds", [(), (Evidence.WORDS,), (Evidence.PICTURE, Evidence.PREVIEW), (Evidence.METADATA,)])
@pytest.mark.parametrize("max_rows", [table.MAX_ROWS, 40])
def test_best_of_several_kinds(
    milvus: MilvusZoo, monkeypatch: pytest.MonkeyPatch, kinds: tuple[Evidence, ...], max_rows: int
) -> None:
    """``k`` counts models, each with its best kind, even where Milvus's largest answer has fewer models than that."""
    for module in (table, position_table):
        monkeypatch.setattr(module, "MAX_ROWS", max_rows)
    places = {f"m{number:02}": places_of(number) for number in range(64 if max_rows > 40 else 39)}
    milvus.add(models(places), list(places.values()))
    counted = kinds or PLACED
    for k in (1, 5, 30):
        hits = milvus.search(random_vectors(1, seed=99)[0], k, Filter(found_by=kinds))
        expected = best_scores(places, random_vectors(1, seed=99)[0], counted)[:k]
        assert [hit.model.id for hit in hits] == [id for id, _ in expected]
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in expected], atol=1e-4)
        for hit in hits:
            of_model = places[hit.model.id]
            assert list(hit.scores) == [kind for kind in counted if kind in of_model]
            assert hit.score == max(hit.scores.values()) == hit.scores[hit.found_by]
            np.testing.assert_array_equal(hit.vector, of_model[hit.found_by].vector)


def test_model_that_changes_while_it_is_searched(milvus: MilvusZoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was removed, or lost its position, after the candidates were taken is no hit."""
    milvus.add(models("abc"), random_vectors(3))
    get = milvus._models.get

    def late_get(*arguments: Any) -> Any:
        monkeypatch.undo()
        milvus.remove(["a"])
        milvus.add(models("b"), [None])
        return get(*arguments)

    monkeypatch.setattr(milvus._models, "get", late_get)
    assert [hit.model.id for hit in milvus.search(random_vectors(1)[0], 3)] == ["c"]


CHANGES: list[Callable[[MilvusZoo], object]] = [
    lambda zoo: zoo.add([replace(model("m07"), family="sdxl"), model("new")], [places_of(2), places_of(7)]),
    lambda zoo: zoo.remove(["m03", "m07"]),
    lambda zoo: zoo.note_files([KnownFile("/y/Anime/1", 1, 1, "m05", name="Zebra")], forget=["/x/1"]),
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("reopens", [False, True])
def test_change_cut_short(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[MilvusZoo], object], reopens: bool
) -> None:
    """Whichever request is the last before the server is gone: the next change, or opening, makes all rows agree."""
    zoo = MilvusZoo.create(folder, SPACE, DIM)
    contents = ([model(f"m{number:02}") for number in range(8)], [places_of(number) for number in range(8)])
    n_writes, is_finished = 0, False
    while not is_finished:
        zoo.add(*contents)
        zoo.note_files([KnownFile("/x/1", 1, 1, "m07", name="Okapi", facts={"tags": ["stripes"]})])
        call, written = zoo._connection.call, 0

        def fails_after(method: str, *arguments: Any, limit: int = n_writes, call: Any = call, **options: Any) -> Any:
            nonlocal written
            if written >= limit:
                raise ZooUnreachable("gone")
            written += method in ("upsert", "delete")
            return call(method, *arguments, **options)

        monkeypatch.setattr(zoo._connection, "call", fails_after)
        try:
            change(zoo)
            is_finished = True
        except ZooUnreachable:
            n_writes += 1
        monkeypatch.undo()
        if reopens:
            zoo.close()
            zoo = MilvusZoo.open(folder)
        else:
            zoo.remove(["nothing"])
        assert zoo.verify() == []
    assert n_writes >= 5
    zoo.close()
