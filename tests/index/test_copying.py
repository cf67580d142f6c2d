"""Copies between stores are equal to the source by value."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loradex.index import AnyZoo, Evidence, KnownFile, Model, Position, Zoo, ZooDamaged, ZooExists, open_zoo
from loradex.index.copying import copy_zoo
from loradex.index.milvus.address import folder_of_address
from tests.index.zoo_oracle import DIM, SPACE, model, random_vectors


def positions_of_every_kind(n: int) -> list[dict[Evidence, Position]]:
    """Positions of models of which one in eight has none, and others by one, two or three kinds of evidence."""
    rng, vectors = np.random.default_rng(5), random_vectors(3 * n).reshape(n, 3, -1)
    kinds = [kind for kind in Evidence if kind != Evidence.METADATA]
    return [
        {
            kind: Position(vector, float(rng.uniform(0.001, 90)), float(rng.normal(0, 9)))
            for bit, (kind, vector) in enumerate(zip(kinds, of_model, strict=True))
            if number >> bit & 1
        }
        for number, of_model in enumerate(vectors)
    ]


def full_zoo(folder: Path) -> Zoo:
    """A zoo with every kind of data."""
    zoo = Zoo.create(folder, SPACE, DIM)
    odd = Model(
        "odd",
        "名\ud800\0<b>",
        "Ünknown",
        "/a\udcff\n",
        None,
        "previews/odd.png",
        {"n": [1.5, None, "\udc80"], "": {}},
        7,
    )
    many = [replace(model(f"m{i:04}"), added=i, facts={"tags": [f"t{i % 5}"], "ranks": [i % 7]}) for i in range(1500)]
    positions = positions_of_every_kind(1500)
    zoo.add([odd, *many], [None, *positions], {"m0003": b"\0\xff" * 700, "odd": b"", "m0004": bytes(range(256))})
    refused = KnownFile("/bad\udcff", 0, -1, None, "/bad: a pickle\ud800", "r1")
    zoo.note_files(
        [
            refused,
            KnownFile("/x/1", 2**40, 2**60, "m0001", None, "r2", "名\ud800", {"tags": ["Zebra", "\udc80"], "n": [1.5]}),
            KnownFile("/x/2", 5, 6, "m0001"),
            KnownFile("/a\udcff\n", 1, 2, "odd"),
        ]
    )
    (folder / "previews").mkdir()
    (folder / "previews" / "odd.png").write_bytes(b"a preview")
    return zoo


def contents(zoo: AnyZoo) -> tuple[object, ...]:
    """All data of a zoo, to compare."""
    models = list(zoo.models())
    positions = {
        id: {kind: (place.vector.tobytes(), place.scale, place.bias) for kind, place in of_model.items()}
        for id, of_model in zoo.positions_by_id([each.id for each in models]).items()
    }
    previews = {path.name: path.read_bytes() for path in (zoo.folder / "previews").iterdir()}
    return (
        zoo.space,
        zoo.dim,
        models,
        [(each.added, each.evidence) for each in models],
        positions,
        zoo.fingerprints(),
        zoo.known_files(),
        zoo.counts("found_by"),
        zoo.counts("tag"),
        previews,
    )


def test_copy_to_milvus_and_back(folder: Path, tmp_path: Path) -> None:
    """From a folder to Milvus, to another zoo in Milvus, back to a folder, and to another folder."""
    with full_zoo(folder) as zoo:
        expected, done = contents(zoo), list[tuple[int, int]]()
        assert (
            copy_zoo(
                zoo,
                folder_of_address(f"milvus://{tmp_path}/one", tmp_path, make=True),
                lambda *counts: done.append(counts),
            )
            == 1501
        )
        assert done[-1] == (1501, 1501)
    with open_zoo(tmp_path / "one", read_only=True) as one:
        assert contents(one) == expected
        copy_zoo(one, folder_of_address(f"milvus://{tmp_path}/two", tmp_path, make=True))
    with open_zoo(tmp_path / "two", read_only=True) as two:
        assert contents(two) == expected and two.verify() == []
        copy_zoo(two, tmp_path / "back")
    with open_zoo(tmp_path / "back", read_only=True) as back:
        assert isinstance(back, Zoo) and contents(back) == expected
        assert back.verify() == [] and [model.id for model in back.find(["zebra"])] == ["m0001"]
        copy_zoo(back, tmp_path / "again")
    with open_zoo(tmp_path / "again", read_only=True) as again:
        assert contents(again) == expected


def test_an_existing_zoo_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    """In either store."""
    with full_zoo(folder) as zoo:
        target = folder_of_address(f"milvus://{tmp_path}/one", tmp_path, make=True)
        copy_zoo(zoo, target)
        for existing in (target, folder):
            with pytest.raises(ZooExists):
                copy_zoo(zoo, existing)
        assert not (target / "copying").exists()


@pytest.mark.parametrize("to_milvus", [True, False])
def test_interrupted_copy(folder: Path, tmp_path: Path, to_milvus: bool) -> None:
    """It cannot be opened as a zoo, and the next copy continues it."""

    class Interrupted(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        raise Interrupted

    with full_zoo(folder) as zoo:
        target, source = tmp_path / "target", zoo
        if to_milvus:
            folder_of_address(f"milvus://{target}", tmp_path, make=True)
        else:
            copy_zoo(zoo, folder_of_address(f"milvus://{tmp_path}/one", tmp_path, make=True))
            source = open_zoo(tmp_path / "one", read_only=True)  # type: ignore[assignment]
        with pytest.raises(Interrupted):
            copy_zoo(source, target, interrupt)
        with pytest.raises(ZooDamaged, match=r"half a copy; run `loradex zoo copy`"):
            open_zoo(target, read_only=True)
        with full_zoo(tmp_path / "another") as another, pytest.raises(ZooExists, match="found one of"):
            copy_zoo(another, target)
        with open_zoo(source.folder) if to_milvus is False else nullcontext(zoo) as changed:
            changed.remove(["m0000", "m0001"])  # after they were copied
            changed.note_files([], ["/bad\udcff"])
            expected = contents(changed)
        copy_zoo(source, target)
        source.close()
    with open_zoo(target, read_only=True) as copy:
        assert contents(copy) == expected
