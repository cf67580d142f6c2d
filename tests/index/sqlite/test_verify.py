"""``verify`` reports each damage of a catalogue, and ``rebuild`` repairs it and removes damaged models."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from zoo_oracle import DIM, SPACE, model, models, nearest, random_vectors, same

from loradex.index import Filter, FoundBy, KnownFile, Model, Zoo, ZooReadOnly
from loradex.index.sqlite.catalogue import CATALOGUE
from loradex.index.sqlite.saved_engines import FOLDER

IDS = [f"m{i:02}" for i in range(30)]
VECTORS = random_vectors(len(IDS))
STATE = dict(zip(IDS, VECTORS, strict=True))
QUERY = random_vectors(1, seed=9)[0]
DAMAGED_ID = "m07"
DAMAGED_KEY = 8


def full_model(id: str) -> Model:
    """A model with words and a preview."""
    return replace(
        model(id, f"BetterHands {id}"),
        preview=f"previews/{id}.png",
        facts={"tags": ["Dog", id], "ranks": [4, 8], "notes": "made by hand"},
    )


@pytest.fixture
def sound(folder: Path) -> Path:
    """A closed zoo of 30 models, with a saved engine, files, fingerprints and previews."""
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(list(map(full_model, IDS)), VECTORS, {id: id.encode() for id in IDS})
        zoo.add([replace(model("bare"), found_by=FoundBy.METADATA)], [None])
        zoo.note_files(
            [
                *(KnownFile(f"/loras/{id}", 1, 1, id, reader="r1") for id in IDS),
                KnownFile("/loras/bad", 1, 1, None, "a pickle"),
            ]
        )
        (folder / "previews").mkdir()
        for id in IDS:
            (folder / "previews" / f"{id}.png").write_bytes(b"png")
        zoo.remove(["nobody"])
        zoo.save_engine("codes")
    return folder


def problems(folder: Path) -> list[str]:
    """The problems that ``verify`` finds, each in one line."""
    with Zoo.open(folder, read_only=True) as zoo:
        found = zoo.verify()
    assert all("\n" not in line for line in found)
    return found


def alter(folder: Path, *statements: str) -> None:
    """Change a catalogue directly in SQLite, without its foreign keys."""
    with closing(sqlite3.connect(folder / CATALOGUE)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_sound_zoos(folder: Path, sound: Path) -> None:
    """They have no problems after any operation; progress is reported."""
    assert problems(sound) == []
    with Zoo.open(sound) as zoo:
        steps: list[tuple[int, int]] = []
        assert zoo.verify(lambda done, total: steps.append((done, total))) == []
        assert steps[-1] == (31, 31)
        zoo.add([replace(full_model(DAMAGED_ID), name="Other")], random_vectors(1, seed=4))
        zoo.remove(IDS[:3])
        assert zoo.verify() == []
        zoo.compact()
        assert zoo.verify() == []
        assert zoo.rebuild("exact") == []
        zoo.add(models(["new"]), random_vectors(1, seed=5))
        assert zoo.verify() == []
    assert problems(sound) == []


def test_empty_zoo(zoo: Zoo) -> None:
    """It has no problems, and nothing to repair."""
    assert zoo.verify() == [] == zoo.rebuild()


DAMAGE = [
    (f"UPDATE vectors SET vector = zeroblob(48) WHERE key = {DAMAGED_KEY}", "vectors of key 8", [DAMAGED_ID]),
    (
        f"UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE key = 9) WHERE key = {DAMAGED_KEY}",
        "vectors of key 8",
        [DAMAGED_ID],
    ),
    (f"UPDATE vectors SET crc = 1 WHERE key = {DAMAGED_KEY}", "vectors of key 8", [DAMAGED_ID]),
    (f"UPDATE fingerprints SET data = x'00' WHERE key = {DAMAGED_KEY}", "fingerprints of key 8", [DAMAGED_ID]),
    (f"UPDATE models SET name = 'Another' WHERE key = {DAMAGED_KEY}", "model 'm07' is not as", [DAMAGED_ID]),
    (f"UPDATE models SET facts = '[' WHERE key = {DAMAGED_KEY}", "model 'm07' is not as", [DAMAGED_ID]),
    (f"UPDATE models SET rank = 99 WHERE key = {DAMAGED_KEY}", "model 'm07' is not as", [DAMAGED_ID]),
    (f"UPDATE models SET added = 1 WHERE key = {DAMAGED_KEY}", "model 'm07' is not as", [DAMAGED_ID]),
    (f"UPDATE models SET name = x'ff' WHERE key = {DAMAGED_KEY}", "is not as", [DAMAGED_ID]),
    (f"UPDATE models SET found_by = 'rumour' WHERE key = {DAMAGED_KEY}", "model 'm07' is not as", [DAMAGED_ID]),
    (f"DELETE FROM vectors WHERE key = {DAMAGED_KEY}", "expected 30 vectors, found 29", [DAMAGED_ID]),
    (f"DELETE FROM models WHERE key = {DAMAGED_KEY}", "a row of vectors belongs to no model", []),
    (f"DELETE FROM tags WHERE key = {DAMAGED_KEY}", "words and tags of model 'm07'", []),
    (f"INSERT INTO tags VALUES ('cat', {DAMAGED_KEY})", "words and tags of model 'm07'", []),
    (f"DELETE FROM words WHERE rowid = {DAMAGED_KEY}", "words and tags of model 'm07'", []),
    (f"UPDATE words SET name = 'cat' WHERE rowid = {DAMAGED_KEY}", "words and tags of model 'm07'", []),
    (
        "INSERT INTO words (rowid, name, tags, notes) VALUES (999, 'ghost', '', '')",
        "1 rows of words belong to no model",
        [],
    ),
    ("DELETE FROM words_data WHERE id > 10", "index of words", []),
    ("UPDATE words_content SET c0 = 'other' WHERE id = 3", "index of words", []),
    ("UPDATE zoo SET vectors = 7", "expected 7 vectors, found 30", []),
]


@pytest.mark.parametrize(("statement", "problem", "removed"), DAMAGE)
def test_each_damage(sound: Path, statement: str, problem: str, removed: list[str]) -> None:
    """It is reported; after ``rebuild`` the zoo is sound, and the files of removed models are unknown."""
    alter(sound, statement)
    found = problems(sound)
    assert any(problem in line for line in found), found
    with Zoo.open(sound) as zoo:
        assert zoo.rebuild() == removed
        assert zoo.verify() == []
        missing = {DAMAGED_ID} if removed or "FROM models" in statement else set()
        remaining = {id: vector for id, vector in STATE.items() if id not in missing}
        assert same(zoo.search(QUERY, 99), nearest(remaining, QUERY, 99))
        assert set(zoo.known_files()) == {f"/loras/{id}" for id in remaining} | {"/loras/bad"}
        assert {each.id for each in zoo.models(Filter(tags=("dog",)))} == set(remaining)
        assert {each.id for each in zoo.find(["better hands"], 99)} == set(remaining)
        zoo.add([full_model(DAMAGED_ID)], [STATE[DAMAGED_ID]], {DAMAGED_ID: DAMAGED_ID.encode()})
        assert same(zoo.search(QUERY, 99), nearest(STATE, QUERY, 99))
    assert problems(sound) == []


def test_missing_preview(sound: Path) -> None:
    """It is reported."""
    (sound / "previews" / f"{DAMAGED_ID}.png").unlink()
    (line,) = problems(sound)
    assert "m07.png: expected the preview of model 'm07', found none" in line


def test_damaged_engine(sound: Path) -> None:
    """A damaged saved engine is reported, and replaced by ``rebuild``; one of an unknown state is not reported."""
    (engine,) = (sound / FOLDER).iterdir()
    original = (engine / "codes.bin").read_bytes()
    (engine / "codes.bin").write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    (line,) = problems(sound)
    assert "the engine is not as it was written" in line
    with Zoo.open(sound) as zoo:
        zoo.rebuild("codes")
        assert zoo.verify() == []
        zoo.compact()
        assert zoo.verify() == []


def test_several_damages(sound: Path) -> None:
    """All are reported and repaired."""
    alter(
        sound,
        *(statement for statement, _, _ in DAMAGE[:3]),
        "UPDATE models SET name = 'x' WHERE key = 20",
        "DELETE FROM vectors WHERE key = 25",
        "DELETE FROM tags",
    )
    assert len(problems(sound)) >= 4
    with Zoo.open(sound) as zoo:
        assert zoo.rebuild() == [IDS[7], IDS[19], IDS[24]]
        assert zoo.verify() == []


def test_no_last_commit(sound: Path) -> None:
    """A catalogue without a state gives an error, not an empty result."""
    alter(sound, "DELETE FROM commits")
    with (
        pytest.raises(Exception, match="expected a sound catalogue, found: None for the last commit"),
        Zoo.open(sound, read_only=True) as zoo,
    ):
        zoo.search(QUERY, 3)


def test_read_only(sound: Path) -> None:
    """A zoo that is open for reading is not rebuilt, compacted or saved."""
    with Zoo.open(sound, read_only=True) as zoo:
        for change in (zoo.rebuild, zoo.compact, zoo.save_engine, lambda: zoo.save_engine("codes")):
            with pytest.raises(ZooReadOnly):
                change()
