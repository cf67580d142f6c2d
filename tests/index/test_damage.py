"""A damaged or foreign catalogue ends in a typed error of one line, never in another answer."""

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from zoo_oracle import DIM, SPACE, models, nearest, same, unit, vectors

import index.schema
from index import KnownFile, Zoo, ZooDamaged, ZooError, ZooReadOnly, ZooTooNew
from index.connections import CATALOGUE

IDS = [f"m{i:02}" for i in range(40)]
GIVEN = vectors(len(IDS))
QUERY = vectors(1, seed=9)[0]
EXPECTED = nearest(dict(zip(IDS, GIVEN, strict=True)), QUERY, 10)


@pytest.fixture
def catalogue(folder: Path) -> Path:
    """The file of a closed zoo of 40 models."""
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models(IDS), GIVEN, {id: id.encode() for id in IDS})
        zoo.note_files([KnownFile(f"/loras/{id}", 1, 1, id) for id in IDS])
    return folder / CATALOGUE


def answers(folder: Path, read_only: bool) -> None:
    """Use all of a zoo; what it answers must be right."""
    with Zoo.open(folder, space=SPACE, read_only=read_only) as zoo:
        assert same(zoo.search(QUERY, 10), EXPECTED)
        assert [zoo.get(id) for id in IDS] == models(IDS)
        assert not read_only or len(zoo.vectors(IDS)) == len(IDS)


@pytest.mark.parametrize("read_only", [False, True])
def test_truncated(catalogue: Path, read_only: bool) -> None:
    """Cut at every kind of place: empty, within the header, at and within pages; SQLite takes a short last page as if zeros followed."""
    whole = catalogue.read_bytes()
    for size in (0, 1, 15, 16, 99, 100, 101, 512, 4095, 4096, 4097, 8192, len(whole) // 2, len(whole) - 4096):
        catalogue.write_bytes(whole[:size])
        with pytest.raises(ZooDamaged, match=r"^[^\n]*catalogue.sqlite: expected [^\n]* found[^\n]*; restore it from a copy[^\n]*$"):
            answers(catalogue.parent, read_only)
    check_spoiled(catalogue, read_only, [whole[:-cut] for cut in (1, 2, 3, 100, 1000, 4095)])
    catalogue.write_bytes(whole)
    answers(catalogue.parent, read_only)


@pytest.mark.parametrize(("read_only", "step"), [(False, 4), (True, 1)])  # a writer syncs the disk: slower
def test_bytes_of_the_header_flipped(catalogue: Path, read_only: bool, step: int) -> None:
    """An error of the tree, or the right answers."""
    check_spoiled(catalogue, read_only, flips(catalogue, range(0, 100, step)))


@pytest.mark.parametrize(("read_only", "n"), [(False, 30), (True, 200)])
def test_any_bit_flipped(catalogue: Path, read_only: bool, n: int) -> None:
    """The same at seeded places of the whole file."""
    rng = np.random.default_rng(5)
    check_spoiled(catalogue, read_only, flips(catalogue, rng.integers(0, catalogue.stat().st_size, n).tolist()))


def flips(catalogue: Path, offsets: Iterable[int]) -> list[bytes]:
    """The content of a file with one bit flipped, for each offset."""
    whole = catalogue.read_bytes()
    return [whole[:offset] + bytes([whole[offset] ^ 1 << offset % 8]) + whole[offset + 1 :] for offset in offsets]


def check_spoiled(catalogue: Path, read_only: bool, contents: Iterable[bytes]) -> None:
    """Each content ends in an error of the tree, or in the right answers."""
    for content in contents:
        catalogue.write_bytes(content)
        try:
            answers(catalogue.parent, read_only)
        except ZooError as error:
            assert "\n" not in str(error)
        for left in ("-wal", "-shm", "-journal"):
            catalogue.with_name(f"{CATALOGUE}{left}").unlink(missing_ok=True)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("content", [np.random.default_rng(0).bytes(20_000), b"<!DOCTYPE html><html>", b"SQLite format 3\0" + b"\0" * 4080])
def test_something_else(folder: Path, content: bytes, read_only: bool) -> None:
    """Noise and other formats are refused and stay as they are."""
    folder.mkdir()
    (folder / CATALOGUE).write_bytes(content)
    with pytest.raises(ZooDamaged):
        answers(folder, read_only)
    assert (folder / CATALOGUE).read_bytes() == content


@pytest.mark.parametrize("read_only", [False, True])
def test_foreign_database(folder: Path, read_only: bool) -> None:
    """A sound SQLite file of another program is refused and stays as it is."""
    folder.mkdir()
    alter(folder / CATALOGUE, "CREATE TABLE zoo (space, dim)")
    before = (folder / CATALOGUE).read_bytes()
    with pytest.raises(ZooDamaged, match="Loradex catalogue"):
        answers(folder, read_only)
    assert (folder / CATALOGUE).read_bytes() == before


@pytest.mark.parametrize("read_only", [False, True])
def test_future_schema(catalogue: Path, read_only: bool) -> None:
    """A later version is refused with advice and stays as it is."""
    alter(catalogue, "PRAGMA user_version = 7")
    before = catalogue.read_bytes()
    with pytest.raises(ZooTooNew, match="schema version 2 or older, found 7; update Loradex"):
        answers(catalogue.parent, read_only)
    assert catalogue.read_bytes() == before


def test_migrations_are_recorded(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later Loradex brings an older zoo up to date when it opens it for writing, not before."""

    def add_tags(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE tags (tag TEXT)")

    monkeypatch.setattr(index.schema, "MIGRATIONS", (*index.schema.MIGRATIONS, add_tags))
    with pytest.raises(ZooReadOnly, match="schema version 3, found 2; open it for writing once"):
        answers(catalogue.parent, True)
    answers(catalogue.parent, False)
    answers(catalogue.parent, True)
    with closing(sqlite3.connect(catalogue)) as connection:
        assert connection.execute("SELECT name FROM migrations ORDER BY name").fetchall() == [("add_tags",), ("create_fingerprints",), ("create_tables",)]


def test_a_zoo_of_version_1_is_read_and_brought_up_to_date(tmp_path: Path) -> None:
    """tests/data/zoo-v1 was written by the first Loradex."""
    folder = shutil.copytree(Path(__file__).parents[1] / "data" / "zoo-v1", tmp_path / "zoo")
    with Zoo.open(folder) as zoo:
        assert [model.id for model in zoo.models()] == ["a", "b", "c"]
        np.testing.assert_allclose(zoo.vectors(["a", "b", "c"]), [unit(vector) for vector in vectors(3)], rtol=0, atol=1e-7)
        assert zoo.known_files()["/loras/bad"].refusal == "expected x"
        assert zoo.fingerprints() == {}
    with Zoo.open(folder, read_only=True) as zoo:
        assert len(zoo) == 3


def alter(catalogue: Path, statement: str) -> None:
    """Change a catalogue behind the zoo's back."""
    with closing(sqlite3.connect(catalogue)) as connection, connection:
        connection.execute(statement)


def search_all(zoo: Zoo) -> object:
    """Read all vectors and models."""
    return zoo.search(QUERY, len(IDS))


@pytest.mark.parametrize(
    ("statement", "use"),
    [
        ("UPDATE vectors SET vector = zeroblob(48) WHERE id = 'm07'", search_all),
        ("UPDATE vectors SET vector = x'00' WHERE id = 'm07'", search_all),
        ("UPDATE vectors SET vector = 'text' WHERE id = 'm07'", search_all),
        ("UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE id = 'm08') WHERE id = 'm07'", lambda zoo: zoo.vector("m07")),
        ("DELETE FROM vectors WHERE id = 'm07'", search_all),
        ("DELETE FROM models WHERE id = 'm07'", search_all),
        ("UPDATE models SET name = 'Another' WHERE id = 'm07'", lambda zoo: zoo.get("m07")),
        ("UPDATE models SET facts = '{' WHERE id = 'm07'", lambda zoo: list(zoo.models())),
        ("UPDATE models SET found_by = 'rumour' WHERE id = 'm07'", search_all),
        ("UPDATE models SET name = x'ff' WHERE id = 'm07'", search_all),
        ("UPDATE models SET name = 3.5 WHERE id = 'm07'", search_all),
        ("DELETE FROM zoo", len),
        ("INSERT INTO zoo SELECT * FROM zoo", len),
        ("UPDATE zoo SET dim = 'many'", len),
        ("UPDATE zoo SET dim = 11", lambda zoo: zoo.search(QUERY[:11], 1)),
        ("UPDATE fingerprints SET data = x'00' WHERE id = 'm07'", lambda zoo: zoo.fingerprints()),
        ("DROP TABLE files", lambda zoo: zoo.known_files()),
    ],
)
def test_altered(catalogue: Path, statement: str, use: Callable[[Zoo], object]) -> None:
    """Rows that are not the ones that were written are noticed when they are read."""
    alter(catalogue, statement)
    with pytest.raises(ZooDamaged), Zoo.open(catalogue.parent, read_only=True) as zoo:
        use(zoo)
