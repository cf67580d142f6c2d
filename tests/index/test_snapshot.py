"""Searches after any history of changes equal the oracle's, in the zoo that changes, in one that reads all along, and in one just opened."""

import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from zoo_oracle import DIM, SPACE, Array, State, model, models, nearest, same, vectors

import loradex.index.sqlite.engine
import loradex.index.sqlite.snapshot
from loradex.index import Filter, FoundBy, Model, Zoo
from loradex.index.sqlite.connections import CATALOGUE
from loradex.index.sqlite.engine import Exact
from loradex.index.sqlite.snapshot import Segment, join

FAMILIES = ["sd-1.5", "sdxl", "flux"]


class History:
    """A zoo, a reader that is open all along, and what both should hold."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Make the zoo."""
        self.folder, self.random, self.seed = folder, random.Random(seed), seed  # noqa: S311
        self.zoo = Zoo.create(folder, SPACE, DIM)
        self.reader = Zoo.open(folder, read_only=True)
        self.models: dict[str, Model] = {}
        self.vectors: State = {}
        self.drawn = self.most = 0

    def vector(self) -> Array:
        """Another vector; one in ten is a copy of one in the zoo, or points the other way."""
        self.drawn += 1
        if self.vectors and self.random.random() < 0.1:
            return self.vectors[self.random.choice(sorted(self.vectors))] * self.random.choice([1, -1])
        return vectors(1, seed=1000 * self.seed + self.drawn)[0]

    def add(self) -> None:
        """New models and some that are there, with a vector or, found by metadata, without."""
        ids = {f"m{self.random.randrange(1500):04}" for _ in range(self.random.choice([1, 2, 10, 90]))}
        made = [replace(model(id), family=self.random.choice(FAMILIES)) for id in sorted(ids)]
        given: list[Array | None] = [self.vector() for _ in made]
        for at in self.random.sample(range(len(made)), len(made) // 10):
            made[at], given[at] = replace(made[at], found_by=FoundBy.METADATA), None
        self.zoo.add(made, given)
        self.models |= {each.id: each for each in made}
        for each, vector in zip(made, given, strict=True):
            self.vectors.pop(each.id, None)
            if vector is not None:
                self.vectors[each.id] = vector

    def some(self, most: int) -> list[str]:
        """Some ids of models that are there."""
        return self.random.sample(sorted(self.models), min(len(self.models), self.random.randint(0, most)))

    def remove(self) -> None:
        """Some models, and one that was never there."""
        gone = self.some(self.random.choice([3, 60, 400]))
        assert self.zoo.remove([*gone, "nobody"]) == len(gone)
        for id in gone:
            del self.models[id]
            self.vectors.pop(id, None)

    def retell(self) -> None:
        """Another family for some models, with the vectors that they have."""
        changed = [replace(self.models[id], family=self.random.choice(FAMILIES)) for id in self.some(30)]
        self.zoo.add(changed, [self.vectors.get(each.id) for each in changed])
        self.models |= {each.id: each for each in changed}

    def compact(self) -> None:
        """Forget the past."""
        self.zoo.compact()

    def rebuild(self) -> None:
        """Make all anew."""
        assert self.zoo.rebuild() == []

    def save(self) -> None:
        """Put an engine on the disk."""
        self.zoo.save_engine(self.random.choice(["auto", "exact", "codes"]))

    def reopen(self) -> None:
        """Close the zoo and open it again."""
        self.zoo.close()
        self.zoo = Zoo.open(self.folder)

    def step(self) -> str:
        """Do something."""
        work = self.random.choices(
            [self.add, self.remove, self.retell, self.compact, self.rebuild, self.save, self.reopen],
            [10, 5, 3, 1, 1, 1, 2],
        )[0]
        work()
        self.most = max(self.most, len(self.vectors))
        return work.__name__

    def check(self) -> None:
        """Ask all three."""
        query = self.vector()
        wanted = self.random.choice([(), (), ("sdxl",), ("sdxl", "flux"), ("nothing",)])
        where = Filter(families=wanted)
        allowed = {id: vector for id, vector in self.vectors.items() if not wanted or self.models[id].family in wanted}
        k = self.random.choice([0, 1, 3, 10, len(self.vectors), len(self.vectors) + 5])
        expected = nearest(allowed, query, k)
        zoos = [self.zoo, self.reader]
        if self.random.random() < 0.2:
            zoos.append(Zoo.open(self.folder, read_only=True))
        for zoo in zoos:
            assert same(zoo.search(query, k, where), expected), (k, wanted)
            assert len(zoo) == len(self.models)
            assert len(zoo._snapshot.segments) <= math.log2(max(self.most, 1)) + 1
        for zoo in zoos[2:]:
            zoo.close()


@pytest.mark.parametrize("seed", range(6))
def test_any_history(folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Adding, replacing, removing, other metadata, compacting, rebuilding, saving, opening again; exact engines and, from 60 vectors, codes."""
    monkeypatch.setattr(loradex.index.sqlite.engine, "CODES_FROM", 60 if seed % 2 else 10**9)
    history = History(folder, seed)
    done = []
    for _ in range(45):
        done.append(history.step())
        try:
            history.check()
        except AssertionError as error:
            raise AssertionError(f"after {done}") from error
    assert history.zoo.verify() == []
    history.zoo.close()
    history.reader.close()


@pytest.mark.parametrize("zoo", ["folder"], indirect=True)  # Milvus has no codes of ours
def test_scores_of_codes_are_exact_and_in_order(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few candidates may miss a hit, but never give a wrong cosine, one that the filter keeps out, or two in wrong order."""
    for module, name in ((loradex.index.sqlite.snapshot, "SPARE"), (loradex.index.sqlite.engine, "WIDE")):
        monkeypatch.setattr(module, name, 0)
    zoo.save_engine("codes")
    state = {f"m{i:04}": vector for i, vector in enumerate(vectors(900))}
    zoo.add([replace(model(id), family=FAMILIES[int(id[1:]) % 3]) for id in state], list(state.values()))
    zoo.remove([f"m{i:04}" for i in range(0, 900, 5)])
    left = {id: vector for id, vector in state.items() if int(id[1:]) % 5}
    for query in vectors(20, seed=8):
        cosines = dict(nearest(left, query, 900))
        for where, allowed in (
            (Filter(), left),
            (Filter(families=("sdxl",)), {id: vector for id, vector in left.items() if int(id[1:]) % 3 == 1}),
        ):
            hits = zoo.search(query, 10, where)
            assert len(hits) == 10 and {hit.model.id for hit in hits} <= set(allowed)
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            assert all(abs(hit.score - cosines[hit.model.id]) < 1e-6 for hit in hits)


@pytest.mark.parametrize("zoo", ["folder"], indirect=True)  # Milvus keeps segments of its own
def test_one_by_one_makes_few_segments(zoo: Zoo) -> None:
    """A thousand commits, and each search has ten segments at most; what a commit costs does not grow with the zoo."""
    given = vectors(1000)
    rows = 0
    of = Exact.of

    def counted(rows_of: Array) -> Exact:
        nonlocal rows
        rows += len(rows_of)
        return of(rows_of)

    for i in range(0, 1000, 4):
        zoo.add(models(f"m{j:04}" for j in range(i, i + 4)), given[i : i + 4])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Exact, "of", counted)
            zoo.search(given[i], 1)
        assert len(zoo._snapshot.segments) <= math.log2(1 + i / 4) + 1
    assert rows <= 1000 * (math.log2(250) + 2)
    assert same(
        zoo.search(given[7], 1000), nearest({f"m{i:04}": vector for i, vector in enumerate(given)}, given[7], 1000)
    )


def test_joined_segments_keep_their_keys() -> None:
    """Rows of segments whose keys overlap in range come in order of key, without those that are gone."""
    given = vectors(9)
    older = Segment(Exact.of(given[:5]), np.array([1, 4, 6, 8, 9]), np.array([True, False, True, True, True]))
    newer = Segment(Exact.of(given[5:]), np.array([2, 4, 7, 10]))
    together = join([older, newer], "auto")
    assert together.keys.tolist() == [1, 2, 4, 6, 7, 8, 9, 10]
    np.testing.assert_array_equal(together.engine.arrays()["vectors"], given[[0, 5, 6, 2, 7, 3, 4, 8]])


def over(copy: Path, catalogue: Path) -> None:
    """Write a copy over the catalogue, as ``cp`` does."""
    catalogue.write_bytes(copy.read_bytes())


def beside(copy: Path, catalogue: Path) -> None:
    """Move a copy to the catalogue's place, as ``rsync`` does."""
    shutil.copy(copy, catalogue.with_name("copied"))
    catalogue.with_name("copied").replace(catalogue)


@dataclass
class Forked:
    """A zoo, a copy of its first state, and a reader and an engine on the disk of what came later."""

    catalogue: Path
    copy: Path
    reader: Zoo
    first: State


@pytest.fixture
def forked(folder: Path, tmp_path: Path) -> Forked:
    """Two states after the copy."""
    catalogue, copy = folder / CATALOGUE, tmp_path / "copy"
    first = dict(zip((f"a{i:02}" for i in range(50)), vectors(50), strict=True))
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models(first), list(first.values()))
    shutil.copy(catalogue, copy)
    with Zoo.open(folder) as zoo:
        later = dict(zip((f"b{i:02}" for i in range(40)), vectors(40, seed=1), strict=True))
        zoo.add(models(later), list(later.values()))
        zoo.save_engine("exact")
    reader = Zoo.open(folder, read_only=True)
    assert same(reader.search(later["b07"], 60), nearest(first | later, later["b07"], 60))
    return Forked(catalogue, copy, reader, first)


@pytest.mark.parametrize("put_back", [over, beside])
@pytest.mark.parametrize("read_between", [True, False])
def test_an_older_copy_put_back(forked: Forked, put_back: Callable[[Path, Path], None], read_between: bool) -> None:
    """Neither a reader nor an engine of the other history answers for it, whatever the numbers of the states that follow."""
    query = vectors(1, seed=1)[0]
    put_back(forked.copy, forked.catalogue)
    if read_between:
        assert same(forked.reader.search(query, 60), nearest(forked.first, query, 60))
    state = dict(forked.first)
    for number in range(4):  # as many commits as the other history had, and more
        with Zoo.open(forked.catalogue.parent) as zoo:
            batch = dict(zip((f"c{number}{i:02}" for i in range(20)), vectors(20, seed=10 + number), strict=True))
            zoo.add(models(batch), list(batch.values()))
            state |= batch
            for asked in (zoo, forked.reader):
                assert same(asked.search(query, 200), nearest(state, query, 200)), (number, asked.read_only)
        for again in range(2):
            assert same(forked.reader.search(query, 200), nearest(state, query, 200)), (number, again)
    with Zoo.open(forked.catalogue.parent, read_only=True) as fresh:
        assert same(fresh.search(query, 200), nearest(state, query, 200))
    forked.reader.close()
