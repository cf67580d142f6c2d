"""``verify`` reports each damage of a catalogue, and ``rebuild`` repairs it and removes damaged models."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from loradex.index import Filter, KnownFile, Model, Position, Zoo, ZooReadOnly
from loradex.index.sqlite.catalogue import CATALOGUE
from loradex.index.sqlite.saved_engines import FOLDER
from tests.index.zoo_oracle import (
    DIM,
    KINDS,
    SPACE,
    agree,
    model,
    models,
    nearest,
    random_positions,
    random_vectors,
    same,
)

IDS = [f"m{i:02}" for i in range(30)]
STATE = dict(zip(IDS, random_positions(len(IDS)), strict=True))
DAMAGED_ID = "m07"
STATE[DAMAGED_ID] = {
    kind: Position(vector, 20.0, -1.5) for kind, vector in zip(KINDS[1:], random_vectors(2), strict=True)
}
N_POSITIONS = sum(map(len, STATE.values()))
QUERY = random_vectors(1, seed=9)[0]
DAMAGED_KEY = 8
WORDS_SLOT, PREVIEW_SLOT = 8 * DAMAGED_KEY + 1, 8 * DAMAGED_KEY + 2


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
        zoo.add(list(map(full_model, IDS)), list(STATE.values()), {id: id.encode() for id in IDS})
        zoo.add([model("bare")], [None])
        zoo.note_files(
            [
                *(
                    KnownFile(f"/loras/{id}", 1, 1, id, reader="r1", name=f"copy of {id}", facts={"tags": ["mine"]})
                    for id in IDS
                ),
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
    (f"UPDATE vectors SET vector = zeroblob(48) WHERE slot = {WORDS_SLOT}", "position in slot 65", [DAMAGED_ID]),
    (
        f"UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE slot = {PREVIEW_SLOT}) WHERE slot = {WORDS_SLOT}",
        "position in slot 65",
        [DAMAGED_ID],
    ),
    (f"UPDATE vectors SET crc = 1 WHERE slot = {PREVIEW_SLOT}", "position in slot 66", [DAMAGED_ID]),
    (f"UPDATE vectors SET scale = 2 * scale WHERE slot = {WORDS_SLOT}", "position in slot 65", [DAMAGED_ID]),
    (f"UPDATE vectors SET bias = 0 WHERE slot = {WORDS_SLOT}", "position in slot 65", [DAMAGED_ID]),
    (f"UPDATE vectors SET bias = 'x' WHERE slot = {WORDS_SLOT}", "position in slot 65", [DAMAGED_ID]),
    (
        f"UPDATE vectors SET slot = {8 * DAMAGED_KEY} WHERE slot = {WORDS_SLOT}",
        "'m07' does not have the pos",
        [DAMAGED_ID],
    ),
    (f"UPDATE vectors SET slot = 8 * 999 WHERE slot = {WORDS_SLOT}", "'m07' does not have the pos", [DAMAGED_ID]),
    (f"UPDATE vectors SET key = 9 WHERE slot = {WORDS_SLOT}", "'m07' does not have the pos", [DAMAGED_ID]),
    (
        f"INSERT INTO vectors SELECT {8 * DAMAGED_KEY + 5}, key, vector, scale, bias, crc, generation FROM vectors"
        f" WHERE slot = {WORDS_SLOT}",
        "'m07' does not have the positions that its row lists",
        [DAMAGED_ID],
    ),
    (f"UPDATE models SET evidence = 1 WHERE key = {DAMAGED_KEY}", "'m07' does not have the pos", [DAMAGED_ID]),
    (f"UPDATE models SET evidence = 6 + 64 WHERE key = {DAMAGED_KEY}", "model 'm07' is not as", [DAMAGED_ID]),
    (f"UPDATE fingerprints SET data = x'00' WHERE key = {DAMAGED_KEY}", "fingerprint of key 8", [DAMAGED_ID]),
    (f"UPDATE models SET name = 'Another' WHERE key = {DAMAGED_KEY}", "model 'm07' is not as", [DAMAGED_ID]),
    (f"UPDATE models SET facts = '[' WHERE key = {DAMAGED_KEY}", "model 'm07' is not as", [DAMAGED_ID]),
    (f"UPDATE models SET rank = 99 WHERE key = {DAMAGED_KEY}", "model 'm07' is not as", [DAMAGED_ID]),
    (f"UPDATE models SET added = 1 WHERE key = {DAMAGED_KEY}", "model 'm07' is not as", [DAMAGED_ID]),
    (f"UPDATE models SET name = x'ff' WHERE key = {DAMAGED_KEY}", "is not as", [DAMAGED_ID]),
    (f"DELETE FROM vectors WHERE key = {DAMAGED_KEY}", f"expected {N_POSITIONS} positions, found", [DAMAGED_ID]),
    (f"DELETE FROM vectors WHERE slot = {PREVIEW_SLOT}", f"expected {N_POSITIONS} positions, found", [DAMAGED_ID]),
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
    ("UPDATE zoo SET vectors = 7", f"expected 7 positions, found {N_POSITIONS}", []),
    ("UPDATE files SET facts = '[' WHERE path = '/loras/m07'", "the row of file '/loras/m07' is not as", []),
    ("UPDATE files SET name = x'ff' WHERE path = '/loras/m07'", "the row of file '/loras/m07' is not as", []),
    ("UPDATE files SET name = 'another' WHERE path = '/loras/m07'", "words and tags of model 'm07'", []),
    ("UPDATE files SET facts = NULL WHERE path = '/loras/m07'", "words and tags of model 'm07'", []),
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
        remaining = {id: given for id, given in STATE.items() if id not in missing}
        hits = zoo.search(QUERY, 99)
        assert same(hits, nearest(remaining, QUERY, 99)) and agree(hits, remaining, QUERY)
        forgotten = {f"/loras/{DAMAGED_ID}"} if missing or problem.startswith("the row of file") else set()
        assert set(zoo.known_files()) == {f"/loras/{id}" for id in IDS} - forgotten | {"/loras/bad"}
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
