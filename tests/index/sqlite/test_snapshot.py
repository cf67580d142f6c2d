"""Hits after random changes equal those of the oracle: in the writer, in an open reader, and in a new reader."""

import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import loradex.index.candidates
import loradex.index.sqlite.engine
from loradex.index import Evidence, Filter, Model, Zoo
from loradex.index.sqlite.catalogue import CATALOGUE
from loradex.index.sqlite.engine import ExactEngine
from loradex.index.sqlite.snapshot import Segment, merge_segments
from tests.index.zoo_oracle import (
    DIM,
    KINDS,
    SPACE,
    Array,
    Given,
    State,
    agree,
    model,
    models,
    nearest,
    positions_of,
    random_positions,
    random_vectors,
    same,
    stores,
)

FAMILIES = ["sd-1.5", "sdxl", "flux"]


class History:
    """A zoo, a reader that stays open, and the models and positions that both must have."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Create the zoo."""
        self.folder, self.random, self.seed = folder, random.Random(seed), seed  # noqa: S311
        self.zoo = Zoo.create(folder, SPACE, DIM)
        self.reader = Zoo.open(folder, read_only=True)
        self.models: dict[str, Model] = {}
        self.state: dict[str, Given] = {}
        self.n_drawn = self.most_positions = 0

    def positions(self) -> Given:
        """New positions; one model in ten has those of one in the zoo, or some of them, or new ones beside some."""
        self.n_drawn += 1
        (drawn,) = random_positions(1, seed=1000 * self.seed + self.n_drawn)
        if self.state and self.random.random() < 0.1:
            others = dict(positions_of(self.state[self.random.choice(sorted(self.state))]))
            some = {
                kind: others[kind] for kind in self.random.sample(sorted(others), self.random.randint(1, len(others)))
            }
            return self.random.choice([others, some, drawn | some])
        return drawn

    def query(self) -> Array:
        """A random query; one in three is the vector of a position in the zoo, or its opposite."""
        self.n_drawn += 1
        if self.state and self.random.random() < 0.3:
            positions = positions_of(self.state[self.random.choice(sorted(self.state))])
            vector = positions[self.random.choice(sorted(positions))].vector
            return np.asarray(vector * np.float32(self.random.choice([1, -1])))
        return random_vectors(1, seed=1000 * self.seed + self.n_drawn)[0]

    def add(self) -> None:
        """Add new and stored models, most with positions, some found by metadata without one."""
        ids = {f"m{self.random.randrange(1500):04}" for _ in range(self.random.choice([1, 2, 10, 90]))}
        models = [replace(model(id), family=self.random.choice(FAMILIES)) for id in sorted(ids)]
        given: list[Given] = [self.positions() for _ in models]
        for at in self.random.sample(range(len(models)), len(models) // 10):
            given[at] = {}
        self.zoo.add(models, given)
        self.models |= {each.id: each for each in models}
        for each, positions in zip(models, given, strict=True):
            self.state.pop(each.id, None)
            if len(positions):
                self.state[each.id] = positions

    def some(self, most: int) -> list[str]:
        """Random ids of stored models."""
        return self.random.sample(sorted(self.models), min(len(self.models), self.random.randint(0, most)))

    def remove(self) -> None:
        """Remove some models, and one that is not in the zoo."""
        gone = self.some(self.random.choice([3, 60, 400]))
        assert self.zoo.remove([*gone, "nobody"]) == len(gone)
        for id in gone:
            del self.models[id]
            self.state.pop(id, None)

    def replace_facts(self) -> None:
        """Change the family of some models and keep their positions."""
        changed = [replace(self.models[id], family=self.random.choice(FAMILIES)) for id in self.some(30)]
        self.zoo.add(changed, [self.state.get(each.id) for each in changed])
        self.models |= {each.id: each for each in changed}

    def compact(self) -> None:
        """Compact the zoo."""
        self.zoo.compact()

    def rebuild(self) -> None:
        """Rebuild the zoo."""
        assert self.zoo.rebuild() == []

    def save(self) -> None:
        """Save an engine of a random kind."""
        self.zoo.save_engine(self.random.choice(["auto", "exact", "codes"]))

    def reopen(self) -> None:
        """Close the zoo and open it again."""
        self.zoo.close()
        self.zoo = Zoo.open(self.folder)

    def step(self) -> str:
        """Do a random operation and return its name."""
        operation = self.random.choices(
            [self.add, self.remove, self.replace_facts, self.compact, self.rebuild, self.save, self.reopen],
            [10, 5, 3, 1, 1, 1, 2],
        )[0]
        operation()
        self.most_positions = max(self.most_positions, sum(map(len, map(positions_of, self.state.values()))))
        return operation.__name__

    def check(self) -> None:
        """Compare a random search in the writer, the reader and sometimes a new reader."""
        query = self.query()
        families = self.random.choice([(), (), ("sdxl",), ("sdxl", "flux"), ("nothing",)])
        where = Filter(
            families=families, found_by=self.random.choice([(), (), KINDS[:1], KINDS[1:], (Evidence.METADATA,)])
        )
        allowed = {id: given for id, given in self.state.items() if not families or self.models[id].family in families}
        k = self.random.choice([0, 1, 3, 10, len(self.state), len(self.state) + 5])
        expected = nearest(allowed, query, k, where.kinds)
        zoos = [self.zoo, self.reader]
        if self.random.random() < 0.2:
            zoos.append(Zoo.open(self.folder, read_only=True))
        for zoo in zoos:
            hits = zoo.search(query, k, where)
            assert same(hits, expected) and agree(hits, allowed, query, where.kinds), (k, where)
            assert len(zoo) == len(self.models)
            assert len(zoo._index.snapshot.segments) <= math.log2(max(self.most_positions, 1)) + 1
        for zoo in zoos[2:]:
            zoo.close()


@pytest.mark.parametrize("seed", range(6))
def test_any_history(folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """45 random operations, with exact engines, and with codes from 60 positions."""
    monkeypatch.setattr(loradex.index.sqlite.engine, "CODES_FROM", 60 if seed % 2 else 10**9)
    history = History(folder, seed)
    operations = []
    for _ in range(45):
        operations.append(history.step())
        try:
            history.check()
        except AssertionError as error:
            raise AssertionError(f"after {operations}") from error
    assert history.zoo.verify() == [] and stores(history.zoo, history.state)
    history.zoo.close()
    history.reader.close()


@pytest.mark.parametrize("zoo", ["folder"], indirect=True)  # Milvus has no such engine
def test_scores_of_codes(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few candidates may miss a hit, but scores and order are exact, and every hit passes the filter."""
    monkeypatch.setattr(loradex.index.candidates, "EXTRA", 0)
    monkeypatch.setattr(loradex.index.candidates, "APPROXIMATE_EXTRA", 0)
    zoo.save_engine("codes")
    state = {f"m{i:04}": positions for i, positions in enumerate(random_positions(900))}
    zoo.add([replace(model(id), family=FAMILIES[int(id[1:]) % 3]) for id in state], list(state.values()))
    zoo.remove([f"m{i:04}" for i in range(0, 900, 5)])
    remaining = {id: given for id, given in state.items() if int(id[1:]) % 5}
    for query in random_vectors(20, seed=8):
        for where, allowed in (
            (Filter(), remaining),
            (Filter(families=("sdxl",)), {id: given for id, given in remaining.items() if int(id[1:]) % 3 == 1}),
            (Filter(found_by=KINDS[1:2]), {id: given for id, given in remaining.items() if KINDS[1] in given}),
        ):
            hits = zoo.search(query, 10, where)
            assert len(hits) == 10 and {hit.model.id for hit in hits} <= set(allowed)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            assert agree(hits, remaining, query, where.kinds)


@pytest.mark.parametrize("zoo", ["folder"], indirect=True)  # segments are those of a snapshot
def test_small_commits_make_few_segments(zoo: Zoo) -> None:
    """After many small commits a snapshot has few segments, and an average commit indexes few positions."""
    vectors = random_vectors(1000)
    n_indexed = 0
    from_vectors = ExactEngine.from_vectors

    def counted(rows: Array) -> ExactEngine:
        nonlocal n_indexed
        n_indexed += len(rows)
        return from_vectors(rows)

    for i in range(0, 1000, 4):
        zoo.add(models(f"m{j:04}" for j in range(i, i + 4)), vectors[i : i + 4])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ExactEngine, "from_vectors", counted)
            zoo.search(vectors[i], 1)
        assert len(zoo._index.snapshot.segments) <= math.log2(1 + i / 4) + 1
    assert n_indexed <= 1000 * (math.log2(250) + 2)
    assert same(
        zoo.search(vectors[7], 1000),
        nearest({f"m{i:04}": vector for i, vector in enumerate(vectors)}, vectors[7], 1000),
    )


def test_merge_segments() -> None:
    """The live rows of segments with interleaved slots are in order of slot."""
    vectors = random_vectors(9)
    older = Segment(
        ExactEngine.from_vectors(vectors[:5]), np.array([1, 4, 6, 8, 9]), np.array([True, False, True, True, True])
    )
    newer = Segment(ExactEngine.from_vectors(vectors[5:]), np.array([2, 4, 7, 10]))
    merged = merge_segments([older, newer], "auto")
    assert merged.slots.tolist() == [1, 2, 4, 6, 7, 8, 9, 10]
    np.testing.assert_array_equal(merged.engine.arrays()["vectors"], vectors[[0, 5, 6, 2, 7, 3, 4, 8]])


def overwrite(copy: Path, catalogue: Path) -> None:
    """Write a copy into the catalogue, as ``cp`` does."""
    catalogue.write_bytes(copy.read_bytes())


def replace_file(copy: Path, catalogue: Path) -> None:
    """Replace the catalogue by a copy, as ``rsync`` does."""
    shutil.copy(copy, catalogue.with_name("copied"))
    catalogue.with_name("copied").replace(catalogue)


@dataclass
class Forked:
    """A zoo, a copy of its first state, and a reader and a saved engine of a later state."""

    catalogue: Path
    copy: Path
    reader: Zoo
    first: State


@pytest.fixture
def forked(folder: Path, tmp_path: Path) -> Forked:
    """The zoo is two states later than the copy."""
    catalogue, copy = folder / CATALOGUE, tmp_path / "copy"
    first = dict(zip((f"a{i:02}" for i in range(50)), random_vectors(50), strict=True))
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models(first), list(first.values()))
    shutil.copy(catalogue, copy)
    with Zoo.open(folder) as zoo:
        later = dict(zip((f"b{i:02}" for i in range(40)), random_vectors(40, seed=1), strict=True))
        zoo.add(models(later), list(later.values()))
        zoo.save_engine("exact")
    reader = Zoo.open(folder, read_only=True)
    assert same(reader.search(later["b07"], 60), nearest(first | later, later["b07"], 60))
    return Forked(catalogue, copy, reader, first)


@pytest.mark.parametrize("restore", [overwrite, replace_file])
@pytest.mark.parametrize("read_before_writing", [True, False])
def test_restored_backup(forked: Forked, restore: Callable[[Path, Path], None], read_before_writing: bool) -> None:
    """Neither an open reader nor a saved engine of the later state is used, also when states get the same numbers."""
    query = random_vectors(1, seed=1)[0]
    restore(forked.copy, forked.catalogue)
    if read_before_writing:
        assert same(forked.reader.search(query, 60), nearest(forked.first, query, 60))
    state = dict(forked.first)
    for number in range(4):  # at least as many commits as were lost
        with Zoo.open(forked.catalogue.parent) as zoo:
            batch = dict(
                zip((f"c{number}{i:02}" for i in range(20)), random_vectors(20, seed=10 + number), strict=True)
            )
            zoo.add(models(batch), list(batch.values()))
            state |= batch
            for searched in (zoo, forked.reader):
                assert same(searched.search(query, 200), nearest(state, query, 200)), (number, searched.read_only)
        for again in range(2):
            assert same(forked.reader.search(query, 200), nearest(state, query, 200)), (number, again)
    with Zoo.open(forked.catalogue.parent, read_only=True) as fresh:
        assert same(fresh.search(query, 200), nearest(state, query, 200))
    forked.reader.close()
