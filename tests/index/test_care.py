"""Verify names each damage and is silent on a sound zoo; rebuild makes it sound, and says which models must be read again."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from zoo_oracle import DIM, SPACE, model, models, nearest, same, vectors

from loradex.index import Filter, FoundBy, KnownFile, Model, Zoo, ZooReadOnly
from loradex.index.sqlite.connections import CATALOGUE
from loradex.index.sqlite.saved_engines import FOLDER

IDS = [f"m{i:02}" for i in range(30)]
GIVEN = vectors(len(IDS))
STATE = dict(zip(IDS, GIVEN, strict=True))
QUERY = vectors(1, seed=9)[0]
HIT = "m07"  # the model that is damaged
KEY = 8


def told(id: str) -> Model:
    """A model with words and a drawing."""
    return replace(
        model(id, f"BetterHands {id}"),
        preview=f"previews/{id}.png",
        facts={"tags": ["Dog", id], "ranks": [4, 8], "notes": "made by hand"},
    )


@pytest.fixture
def sound(folder: Path) -> Path:
    """A closed zoo of 30 models, with an engine, files, fingerprints and drawings."""
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(list(map(told, IDS)), GIVEN, {id: id.encode() for id in IDS})
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
    """What verify finds, each in one line."""
    with Zoo.open(folder, read_only=True) as zoo:
        found = zoo.verify()
    assert all("\n" not in line for line in found)
    return found


def alter(folder: Path, *statements: str) -> None:
    """Change a catalogue behind the zoo's back, its rules off."""
    with closing(sqlite3.connect(folder / CATALOGUE)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_silent_on_sound_zoos(folder: Path, sound: Path) -> None:
    """Whatever was done to them; and told how far it is."""
    assert problems(sound) == []
    with Zoo.open(sound) as zoo:
        steps: list[tuple[int, int]] = []
        assert zoo.verify(lambda done, total: steps.append((done, total))) == []
        assert steps[-1] == (31, 31)
        zoo.add([replace(told(HIT), name="Other")], vectors(1, seed=4))
        zoo.remove(IDS[:3])
        assert zoo.verify() == []
        zoo.compact()
        assert zoo.verify() == []
        assert zoo.rebuild("exact") == []
        zoo.add(models(["new"]), vectors(1, seed=5))
        assert zoo.verify() == []
    assert problems(sound) == []


def test_silent_on_an_empty_zoo(zoo: Zoo) -> None:
    """It has nothing that could be wrong."""
    assert zoo.verify() == [] == zoo.rebuild()


DAMAGE = [
    (f"UPDATE vectors SET vector = zeroblob(48) WHERE key = {KEY}", "vectors of key 8", [HIT]),
    (
        f"UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE key = 9) WHERE key = {KEY}",
        "vectors of key 8",
        [HIT],
    ),
    (f"UPDATE vectors SET crc = 1 WHERE key = {KEY}", "vectors of key 8", [HIT]),
    (f"UPDATE fingerprints SET data = x'00' WHERE key = {KEY}", "fingerprints of key 8", [HIT]),
    (f"UPDATE models SET name = 'Another' WHERE key = {KEY}", "model 'm07' is not as", [HIT]),
    (f"UPDATE models SET facts = '[' WHERE key = {KEY}", "model 'm07' is not as", [HIT]),
    (f"UPDATE models SET rank = 99 WHERE key = {KEY}", "model 'm07' is not as", [HIT]),
    (f"UPDATE models SET added = 1 WHERE key = {KEY}", "model 'm07' is not as", [HIT]),
    (f"UPDATE models SET name = x'ff' WHERE key = {KEY}", "is not as", [HIT]),
    (f"UPDATE models SET found_by = 'rumour' WHERE key = {KEY}", "model 'm07' is not as", [HIT]),
    (f"DELETE FROM vectors WHERE key = {KEY}", "expected 30 vectors, found 29", [HIT]),
    (f"DELETE FROM models WHERE key = {KEY}", "a row of vectors belongs to no model", []),
    (f"DELETE FROM tags WHERE key = {KEY}", "words and tags of model 'm07'", []),
    (f"INSERT INTO tags VALUES ('cat', {KEY})", "words and tags of model 'm07'", []),
    (f"DELETE FROM words WHERE rowid = {KEY}", "words and tags of model 'm07'", []),
    (f"UPDATE words SET name = 'cat' WHERE rowid = {KEY}", "words and tags of model 'm07'", []),
    (
        "INSERT INTO words (rowid, name, tags, notes) VALUES (999, 'ghost', '', '')",
        "1 rows of words belong to no model",
        [],
    ),
    ("DELETE FROM words_data WHERE id > 10", "index of words", []),
    ("UPDATE words_content SET c0 = 'other' WHERE id = 3", "index of words", []),
    ("UPDATE zoo SET vectors = 7", "expected 7 vectors, found 30", []),
]


@pytest.mark.parametrize(("statement", "said", "lost"), DAMAGE)
def test_each_damage_is_named_and_mended(sound: Path, statement: str, said: str, lost: list[str]) -> None:
    """Rebuilt, the zoo is sound; models that are lost are named, and their files are unknown, so that they are read again."""
    alter(sound, statement)
    found = problems(sound)
    assert any(said in line for line in found), found
    with Zoo.open(sound) as zoo:
        assert zoo.rebuild() == lost
        assert zoo.verify() == []
        gone = {HIT} if lost or "FROM models" in statement else set()
        left = {id: vector for id, vector in STATE.items() if id not in gone}
        assert same(zoo.search(QUERY, 99), nearest(left, QUERY, 99))
        assert set(zoo.known_files()) == {f"/loras/{id}" for id in left} | {"/loras/bad"}
        assert {each.id for each in zoo.models(Filter(tags=("dog",)))} == set(left)
        assert {each.id for each in zoo.find(["better hands"], 99)} == set(left)
        zoo.add([told(HIT)], [STATE[HIT]], {HIT: HIT.encode()})
        assert same(zoo.search(QUERY, 99), nearest(STATE, QUERY, 99))
    assert problems(sound) == []


def test_a_drawing_that_is_missing(sound: Path) -> None:
    """It is named; no rebuild can draw it."""
    (sound / "previews" / f"{HIT}.png").unlink()
    (line,) = problems(sound)
    assert "m07.png: expected the drawing of model 'm07', found none" in line


def test_an_engine_that_is_damaged(sound: Path) -> None:
    """One that is not as it was written, or that is of other vectors, is named; one of a state long gone is not; rebuild replaces it."""
    (engine,) = (sound / FOLDER).iterdir()
    whole = (engine / "codes.bin").read_bytes()
    (engine / "codes.bin").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (line,) = problems(sound)
    assert "the engine is not as it was written" in line
    with Zoo.open(sound) as zoo:
        zoo.rebuild("codes")
        assert zoo.verify() == []
        zoo.compact()
        assert zoo.verify() == []


def test_several_damages_at_once(sound: Path) -> None:
    """All are named, and all are mended."""
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
    """A catalogue that says of no state which it is gives no empty answer."""
    alter(sound, "DELETE FROM commits")
    with (
        pytest.raises(Exception, match="expected a sound catalogue, found: None for the last commit"),
        Zoo.open(sound, read_only=True) as zoo,
    ):
        zoo.search(QUERY, 3)


def test_readers_do_not_rebuild(sound: Path) -> None:
    """Nor compact, nor save."""
    with Zoo.open(sound, read_only=True) as zoo:
        for work in (zoo.rebuild, zoo.compact, zoo.save_engine, lambda: zoo.save_engine("codes")):
            with pytest.raises(ZooReadOnly):
                work()
