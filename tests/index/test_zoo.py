"""Storing and reading models, vectors, fingerprints and files, and refusal of what cannot be stored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import loradex.index
from loradex.index import (
    BadModel,
    BadVector,
    DiskRefused,
    Evidence,
    Filter,
    KnownFile,
    Model,
    ModelMissing,
    Position,
    SpaceMismatch,
    Zoo,
    ZooClosed,
    ZooError,
    ZooExists,
    ZooMissing,
    ZooReadOnly,
)
from tests.index.zoo_oracle import DIM, KINDS, SPACE, agree, model, models, nearest, random_vectors, same, stores, unit


def test_exported_names() -> None:
    """The public names of the package."""
    errors = "BadModel BadQuery BadVector DiskRefused ModelMissing SpaceMismatch ZooClosed ZooDamaged ZooError ZooExists ZooLocked ZooUnreachable"
    others = (
        "AnyZoo open_or_create_zoo open_zoo Evidence Filter Hit KnownFile Model Position Positions Zoo ZooMissing"
        " ZooOutdated ZooReadOnly ZooTooNew"
    )
    assert sorted(loradex.index.__all__) == sorted([*errors.split(), *others.split()])
    assert all(
        issubclass(getattr(loradex.index, name), ZooError)
        for name in [*errors.split(), "ZooMissing", "ZooOutdated", "ZooReadOnly", "ZooTooNew"]
    )


def test_models_are_read_as_written(folder: Path) -> None:
    """Every field and vector, after closing and opening the zoo."""
    odd = Model(
        "odd",
        "名\ud800\0<b>",
        "unknown",
        "/a\udcff\n",
        None,
        "previews/x.png",
        {"n": [1.5, None, "\udc80"], "": {}},
    )
    full = [replace(model("b"), preview="b.png"), odd, model("a")]
    vectors = random_vectors(3)
    with Zoo.create(folder, SPACE, DIM) as zoo:
        assert zoo.add(full, vectors) == 3
    for read_only in (False, True):
        with Zoo.open(folder, space=SPACE, read_only=read_only) as zoo:
            assert (zoo.space, zoo.dim, zoo.folder, zoo.read_only, len(zoo)) == (SPACE, DIM, folder, read_only, 3)
            assert list(zoo.models()) == [full[2], full[0], full[1]]
            assert zoo.get("odd") == odd
            found = zoo.vectors_by_id(["odd", "b", "nobody"])
            assert sorted(found) == ["b", "odd"]
            np.testing.assert_allclose(found["odd"], unit(vectors[1]), rtol=0, atol=1e-7)
            assert zoo.vector("a").dtype == np.float32
            assert same(
                zoo.search(vectors[1], 3), nearest({"b": vectors[0], "odd": vectors[1], "a": vectors[2]}, vectors[1], 3)
            )
            assert zoo.search(vectors[1], 1)[0].model == odd


def test_fingerprints(zoo: Zoo) -> None:
    """They are read as written, replaced by id, and removed with their model."""
    zoo.add(models(["a", "b"]), random_vectors(2), {"b": b"\0two", "a": b"one"})
    assert list(zoo.fingerprints().items()) == [("a", b"one"), ("b", b"\0two")]
    zoo.add(models(["a"]), random_vectors(1), {"a": b"another"})
    assert zoo.fingerprints()["a"] == b"another"
    with pytest.raises(ModelMissing, match="fingerprint of model 'x'"):
        zoo.add(models(["c"]), random_vectors(1), {"x": b"lost"})
    assert len(zoo) == 2
    zoo.remove(["a"])
    assert list(zoo.fingerprints()) == ["b"]


def test_upsert(zoo: Zoo) -> None:
    """A stored model is replaced with its vector; of two models with one id in a batch the last counts."""
    first, second, third = random_vectors(3)
    zoo.add(models(["a", "b"]), [first, second])
    assert zoo.add([model("a", "newer"), model("a", "newest")], [second, third]) == 1
    assert len(zoo) == 2
    assert zoo.get("a").name == "newest"
    assert same(zoo.search(third, 2), nearest({"a": third, "b": second}, third, 2))


def test_remove(zoo: Zoo) -> None:
    """Removed models are missing from listing, search and known files; unknown ids are not counted."""
    vectors = random_vectors(3)
    zoo.add(models("abc"), vectors)
    zoo.note_files([KnownFile("/x/b", 1, 2, "b"), KnownFile("/x/c", 3, 4, "c")])
    assert zoo.remove(["b", "b", "nowhere"]) == 1
    assert zoo.remove([]) == 0
    assert same(zoo.search(vectors[1], 9), nearest({"a": vectors[0], "c": vectors[2]}, vectors[1], 9))
    assert list(zoo.known_files()) == ["/x/c"]
    for missing in (zoo.get, zoo.vector):
        with pytest.raises(ModelMissing, match="'b'"):
            missing("b")


def test_models_without_a_vector(zoo: Zoo) -> None:
    """They are listed and never a hit; a vector may be added and removed later."""
    named = model("m")
    vectors = random_vectors(2)
    assert zoo.add([named, model("w")], [None, vectors[0]]) == 2
    assert (len(zoo), zoo.get("m")) == (2, named)
    assert [hit.model.id for hit in zoo.search(vectors[1], 9)] == ["w"]
    with pytest.raises(ModelMissing, match="vector of model 'm'"):
        zoo.vector("m")
    assert (zoo.get("m").found_by, zoo.get("w").found_by) == (Evidence.METADATA, Evidence.PICTURE)
    zoo.add([model("m")], [vectors[1]])
    assert [hit.model.id for hit in zoo.search(vectors[1], 9)] == ["m", "w"]
    zoo.add([named], [None])
    assert [hit.model.id for hit in zoo.search(vectors[1], 9)] == ["w"]
    zoo.add([model("w")], [{}])
    assert zoo.search(vectors[1], 9) == [] and len(zoo) == 2


def test_kinds_of_evidence_are_replaced_and_removed(zoo: Zoo) -> None:
    """A model is replaced with its positions: those of kinds that are not given any more are gone."""
    picture, words, preview = (Position(vector, 20.0, -0.5) for vector in random_vectors(3))
    other = random_vectors(1, seed=1)[0]
    histories = [
        {KINDS[0]: picture},
        {KINDS[0]: picture, KINDS[2]: preview},
        {KINDS[2]: replace(preview, bias=1.25)},
        {KINDS[2]: replace(preview, bias=1.25, scale=3.5)},
        {KINDS[0]: picture, KINDS[1]: words, KINDS[2]: preview},
        {KINDS[1]: words},
        {},
        {KINDS[1]: Position(picture.vector)},
    ]
    zoo.add(models(["other"]), [other])
    for positions in histories:
        zoo.add(models("a"), [positions])
        state = {"other": other} | ({"a": positions} if positions else {})
        assert stores(zoo, state)
        for vector in (other, picture.vector, words.vector, preview.vector):
            for kinds in (KINDS, KINDS[:1], KINDS[1:]):
                hits = zoo.search(vector, 9, Filter(found_by=kinds))
                assert same(hits, nearest(state, vector, 9, kinds)) and agree(hits, state, vector, kinds)
        assert zoo.get("a").evidence == tuple(positions)
        assert zoo.verify() == []


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ({Evidence.METADATA: Position(np.ones(DIM))}, "found one by 'metadata'"),
        ({"rumour": np.ones(DIM)}, "found one by 'rumour'"),
        ({Evidence.WORDS: Position(np.ones(DIM), 0.0)}, "words vector of model 'b': expected a positive scale"),
        ({Evidence.WORDS: Position(np.ones(DIM), -1.0)}, "expected a positive scale"),
        ({Evidence.WORDS: Position(np.ones(DIM), float("nan"))}, "expected a positive scale"),
        ({Evidence.WORDS: Position(np.ones(DIM), 1.0, float("inf"))}, "and a bias"),
        ({Evidence.WORDS: Position(np.ones(DIM), "1")}, "expected a positive scale"),  # type: ignore[arg-type]
        ({Evidence.PREVIEW: Position(np.zeros(DIM))}, "preview vector of model 'b'"),
    ],
)
def test_bad_positions_store_nothing(zoo: Zoo, positions: Any, message: str) -> None:
    """With one bad position nothing of the batch is stored."""
    with pytest.raises(BadVector, match=f"^[^\n]*{message}[^\n]*$"):
        zoo.add(models("ab"), [random_vectors(1)[0], positions])
    assert len(zoo) == 0


BAD_VECTORS: list[Any] = [
    np.full(DIM, np.nan),
    np.array([np.inf] + [1.0] * (DIM - 1)),
    np.zeros(DIM),
    np.ones(DIM + 1),
    np.ones((DIM, 1)),
    np.array(1.0),
    np.array(["x"] * DIM),
    [[1], [1, 2]],
]


@pytest.mark.parametrize("bad", BAD_VECTORS)
def test_bad_vectors_store_nothing(zoo: Zoo, bad: Any) -> None:
    """With one bad vector nothing of the batch is stored."""
    zoo.add(models(["old"]), random_vectors(1))
    with pytest.raises(BadVector, match="^picture vector of model 'b': expected .* found "):
        zoo.add([model("a"), model("b"), model("old", "newer")], [random_vectors(1)[0], bad, random_vectors(1)[0]])
    assert list(zoo.models()) == models(["old"])


@pytest.mark.parametrize("vectors", [random_vectors(1), random_vectors(3), random_vectors(0), np.float32(1), []])
def test_as_many_vectors_as_models(zoo: Zoo, vectors: Any) -> None:
    """A batch with more or fewer vectors than models is refused."""
    with pytest.raises(BadVector, match=r"^[^\n]+$"):
        zoo.add(models("ab"), vectors)
    assert len(zoo) == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"id": ""},
        {"id": "\ud800"},
        {"id": 3},
        {"name": None},
        {"path": Path("/x")},
        {"facts": {"alpha": float("nan")}},
        {"facts": {"a": {1, 2}}},
        {"facts": [1]},
    ],
)
def test_bad_models_store_nothing(zoo: Zoo, bad: dict[str, Any]) -> None:
    """With one model that has a field of another type nothing of the batch is stored."""
    with pytest.raises(BadModel, match=r"^model [^\n]* expected [^\n]* found[^\n]*$"):
        zoo.add([model("a"), replace(model("b"), **bad)], random_vectors(2))
    assert len(zoo) == 0


def test_empty_batch(zoo: Zoo) -> None:
    """An empty batch is not an error."""
    assert zoo.add([], []) == 0
    assert zoo.add([], random_vectors(0)) == 0


def test_known_files(folder: Path) -> None:
    """Results of indexing are stored by path; a renamed file keeps its model."""
    was, refused = KnownFile("/x/dog", 10, 2**60, "a"), KnownFile("/x/cat\udcff", 0, -1, None, "/x/cat: a pickle\ud800")
    with Zoo.create(folder, SPACE, DIM) as zoo:
        assert zoo.known_files() == {}
        zoo.add(models("a"), random_vectors(1))
        zoo.note_files([was, refused])
        zoo.note_files([replace(was, mtime_ns=5)])
        zoo.add([replace(model("a"), path="/y/hound")], random_vectors(1))
        zoo.note_files([KnownFile("/y/hound", 10, 5, "a")])
    with Zoo.open(folder, read_only=True) as zoo:
        assert zoo.known_files() == {
            "/x/dog": replace(was, mtime_ns=5),
            "/x/cat\udcff": refused,
            "/y/hound": KnownFile("/y/hound", 10, 5, "a"),
        }
        assert zoo.files_by_model(["a", "b"]) == {"a": [replace(was, mtime_ns=5), KnownFile("/y/hound", 10, 5, "a")]}
        assert [model.path for model in zoo.models()] == ["/y/hound"]


def test_names_and_facts_of_files(zoo: Zoo) -> None:
    """They are read as written."""
    facts = {"tags": ["x", "\ud800"], "notes": "y", "n": [1.5, None]}
    file = KnownFile("/x/dog", 1, 2, "a", reader="r", name="名\udcff", facts=facts)
    zoo.add(models("a"), random_vectors(1))
    zoo.note_files([file, KnownFile("/x/bad", 1, 2, None, "no")])
    assert zoo.known_files() == {"/x/dog": file, "/x/bad": KnownFile("/x/bad", 1, 2, None, "no")}
    assert zoo.files_by_model(["a"]) == {"a": [file]}
    for bad in ({"n": float("nan")}, {"n": {1}}):
        with pytest.raises(BadModel, match=r"^file '/x/cat': expected JSON facts[^\n]*$"):
            zoo.note_files([KnownFile("/x/cat", 1, 1, "a", facts=bad)])
    assert sorted(zoo.known_files()) == ["/x/bad", "/x/dog"]


def test_files_of_unknown_models(zoo: Zoo) -> None:
    """A file of a model that is not in the zoo is refused, with its batch."""
    with pytest.raises(ModelMissing, match="^file '/x/b': expected model 'b'"):
        zoo.note_files([KnownFile("/x/a", 1, 1), KnownFile("/x/b", 1, 1, "b")])
    assert zoo.known_files() == {}


def test_many_models_in_order(zoo: Zoo) -> None:
    """Models of several pages are listed in order of id, also while some are added and removed."""
    ids = [f"m{i * 7 % 1201:04}" for i in range(1201)]
    zoo.add(models(ids), random_vectors(1201))
    assert [model.id for model in zoo.models()] == sorted(ids)
    walk = zoo.models()
    assert next(walk).id == "m0000"
    zoo.add(models(["zzz"]), random_vectors(1))
    zoo.remove(["m1200"])
    assert [model.id for model in walk] == [*sorted(ids)[1:-1], "zzz"]


def test_another_space_is_refused(folder: Path) -> None:
    """The message names both spaces, and the zoo is not left locked."""
    Zoo.create(folder, SPACE, DIM).close()
    for read_only in (False, True):
        with pytest.raises(SpaceMismatch, match="'pictures-2'.*'words-1'"):
            Zoo.open(folder, space="pictures-2", read_only=read_only)
    with pytest.raises(SpaceMismatch, match="'pictures-2'.*'words-1'"):
        Zoo.open_or_create(folder, "pictures-2", DIM)
    with pytest.raises(SpaceMismatch, match=f"{DIM + 1} dimensions.* {DIM};"):
        Zoo.open_or_create(folder, SPACE, DIM + 1)
    Zoo.open(folder, space=SPACE).close()


def test_open_create_and_missing(folder: Path, tmp_path: Path) -> None:
    """A folder holds one zoo; opening never creates one."""
    for read_only in (False, True):
        with pytest.raises(ZooMissing, match="found none"):
            Zoo.open(folder, read_only=read_only)
    assert not folder.exists()
    Zoo.open_or_create(folder, SPACE, DIM).close()
    (folder / "notes.txt").write_text("kept")
    with Zoo.open_or_create(folder, SPACE, DIM) as zoo:
        zoo.add(models("a"), random_vectors(1))
    with pytest.raises(ZooExists):
        Zoo.create(folder, SPACE, DIM)
    with Zoo.open(folder) as zoo:
        assert len(zoo) == 1
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DiskRefused, match="File exists"):
        Zoo.create(tmp_path / "file", SPACE, DIM)
    with pytest.raises(ZooMissing):
        Zoo.open(tmp_path / "file")


@pytest.mark.parametrize(("space", "dim"), [("", 3), ("s", 0), ("s", -1)])
def test_bad_space_or_dim(folder: Path, space: str, dim: int) -> None:
    """A zoo needs the name of a space and a positive dim."""
    with pytest.raises(BadVector):
        Zoo.create(folder, space, dim)
    assert not folder.exists()


def test_create_after_a_killed_create(folder: Path) -> None:
    """A partial catalogue is not a zoo, and is overwritten."""
    folder.mkdir()
    (folder / ".catalogue.sqlite.part").write_bytes(b"half")
    with pytest.raises(ZooMissing):
        Zoo.open(folder)
    with Zoo.create(folder, SPACE, DIM) as zoo:
        assert len(zoo) == 0


def test_read_only(folder: Path) -> None:
    """A zoo that is open for reading refuses every write."""
    Zoo.create(folder, SPACE, DIM).close()
    with Zoo.open(folder, read_only=True) as zoo:
        for write in (
            lambda: zoo.add(models("a"), random_vectors(1)),
            lambda: zoo.remove(["a"]),
            lambda: zoo.note_files([]),
        ):
            with pytest.raises(ZooReadOnly, match="open it without read_only"):
                write()


def test_closed(folder: Path) -> None:
    """Using a closed zoo is an error, closing twice is not, and one plain file is left beside the lock."""
    zoo = Zoo.create(folder, SPACE, DIM)
    zoo.add(models("a"), random_vectors(1))
    zoo.close()
    zoo.close()
    for call in (
        lambda: zoo.search(random_vectors(1)[0], 1),
        lambda: zoo.get("a"),
        lambda: zoo.add(models("a"), random_vectors(1)),
        lambda: len(zoo),
    ):
        with pytest.raises(ZooClosed):
            call()
    assert sorted(path.name for path in folder.iterdir()) == ["catalogue.sqlite", "writer.lock"]
