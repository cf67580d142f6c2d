"""A damaged or foreign catalogue gives a ``ZooError`` of one line or the right results, never wrong ones."""

import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import loradex.index.sqlite.schema
from loradex.index import KnownFile, Zoo, ZooDamaged, ZooError, ZooOutdated, ZooTooNew
from loradex.index.lock import LOCK
from loradex.index.sqlite.catalogue import CATALOGUE
from tests.index.sqlite.test_processes import run
from tests.index.sqlite.zoo_child import BATCH, batch_of
from tests.index.zoo_oracle import DIM, SPACE, agree, models, nearest, random_positions, random_vectors, same, stores

IDS = [f"m{i:02}" for i in range(40)]
STATE = dict(zip(IDS, random_positions(len(IDS)), strict=True))
STATE["m07"] = random_positions(7)[6]  # of every kind
QUERY = random_vectors(1, seed=9)[0]
EXPECTED = nearest(STATE, QUERY, 10)


@pytest.fixture
def catalogue(folder: Path) -> Path:
    """The file of a closed zoo of 40 models."""
    with Zoo.create(folder, SPACE, DIM) as zoo:
        zoo.add(models(IDS), list(STATE.values()), {id: id.encode() for id in IDS})
        zoo.note_files([KnownFile(f"/loras/{id}", 1, 1, id) for id in IDS])
    return folder / CATALOGUE


def check_zoo(folder: Path, read_only: bool) -> None:
    """Read and search the zoo of ``catalogue``; every result must be right."""
    with Zoo.open(folder, space=SPACE, read_only=read_only) as zoo:
        hits = zoo.search(QUERY, 10)
        assert same(hits, EXPECTED) and agree(hits, STATE, QUERY)
        assert [zoo.get(id) for id in IDS] == models(IDS)
        assert not read_only or stores(zoo, STATE)


@pytest.mark.parametrize("read_only", [False, True])
def test_truncated(catalogue: Path, read_only: bool) -> None:
    """Cut in the header, between and within pages. SQLite reads a short last page as if zeros followed."""
    content = catalogue.read_bytes()
    for size in (0, 1, 15, 16, 99, 100, 101, 512, 4095, 4096, 8191, 8192, 8193, 16384, len(content) // 2):
        catalogue.write_bytes(content[:size])
        with pytest.raises(
            ZooDamaged, match=r"^[^\n]*catalogue.sqlite: expected [^\n]* found[^\n]*; restore it from a copy[^\n]*$"
        ):
            check_zoo(catalogue.parent, read_only)
    check_contents(catalogue, read_only, [content[:-cut] for cut in (1, 2, 3, 100, 1000, 4095, 8191, 8192, 16384)])
    catalogue.write_bytes(content)
    check_zoo(catalogue.parent, read_only)


@pytest.mark.parametrize(("read_only", "step"), [(False, 4), (True, 1)])  # a writer syncs the disk: slower
def test_bytes_of_the_header_flipped(catalogue: Path, read_only: bool, step: int) -> None:
    """A ``ZooError``, or the right results."""
    check_contents(catalogue, read_only, flips(catalogue, range(0, 100, step)))


@pytest.mark.parametrize(("read_only", "n"), [(False, 30), (True, 200)])
def test_any_bit_flipped(catalogue: Path, read_only: bool, n: int) -> None:
    """The same for random bits of the file."""
    rng = np.random.default_rng(5)
    check_contents(catalogue, read_only, flips(catalogue, rng.integers(0, catalogue.stat().st_size, n).tolist()))


def flips(catalogue: Path, offsets: Iterable[int]) -> list[bytes]:
    """The content of a file with one bit flipped at each offset."""
    content = catalogue.read_bytes()
    return [content[:offset] + bytes([content[offset] ^ 1 << offset % 8]) + content[offset + 1 :] for offset in offsets]


def check_contents(catalogue: Path, read_only: bool, contents: Iterable[bytes]) -> None:
    """Each content gives a ``ZooError``, or the right results."""
    for content in contents:
        catalogue.write_bytes(content)
        try:
            check_zoo(catalogue.parent, read_only)
        except ZooError as error:
            assert "\n" not in str(error)
        for left in ("-wal", "-shm", "-journal"):
            catalogue.with_name(f"{CATALOGUE}{left}").unlink(missing_ok=True)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "content", [np.random.default_rng(0).bytes(20_000), b"<!DOCTYPE html><html>", b"SQLite format 3\0" + b"\0" * 4080]
)
def test_other_formats(folder: Path, content: bytes, read_only: bool) -> None:
    """Noise and files of other formats are refused and not changed."""
    folder.mkdir()
    (folder / CATALOGUE).write_bytes(content)
    with pytest.raises(ZooDamaged):
        check_zoo(folder, read_only)
    assert (folder / CATALOGUE).read_bytes() == content


@pytest.mark.parametrize("read_only", [False, True])
def test_foreign_database(folder: Path, read_only: bool) -> None:
    """A sound SQLite file of another program is refused and not changed."""
    folder.mkdir()
    alter(folder / CATALOGUE, "CREATE TABLE zoo (space, dim)")
    before = (folder / CATALOGUE).read_bytes()
    with pytest.raises(ZooDamaged, match="Loradex catalogue"):
        check_zoo(folder, read_only)
    assert (folder / CATALOGUE).read_bytes() == before


@pytest.mark.parametrize("read_only", [False, True])
def test_future_schema(catalogue: Path, read_only: bool) -> None:
    """A catalogue of a later version is refused with advice and not changed."""
    alter(catalogue, "PRAGMA user_version = 9")
    before = catalogue.read_bytes()
    with pytest.raises(ZooTooNew, match="schema version 4 or older, found 9; update Loradex"):
        check_zoo(catalogue.parent, read_only)
    assert catalogue.read_bytes() == before


def test_migrations(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a zoo for writing migrates it and records the migration; a reader cannot open it before."""

    def add_extras(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE extras (tag TEXT)")

    monkeypatch.setattr(
        loradex.index.sqlite.schema, "MIGRATIONS", (*loradex.index.sqlite.schema.MIGRATIONS, add_extras)
    )
    with pytest.raises(ZooOutdated, match="schema version 5, found 4; migrate it with"):
        check_zoo(catalogue.parent, True)
    check_zoo(catalogue.parent, False)
    check_zoo(catalogue.parent, True)
    with closing(sqlite3.connect(catalogue)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM migrations ORDER BY name")]
    assert names == ["add_extras", "create_fingerprints", "create_tables", "give_evidence", "give_keys"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zoo whose writer was killed: a catalogue without models, and three batches in its log."""
    folder = tmp_path_factory.mktemp("killed") / "zoo"
    Zoo.create(folder, SPACE, DIM).close()
    assert run("add_and_die", folder)[0] == -signal.SIGKILL
    assert (folder / f"{CATALOGUE}-wal").stat().st_size > 100_000
    return folder


def check_batches(folder: Path, read_only: bool, sound: bool) -> int:
    """Return how many of the three batches are in the zoo, the first ones and complete; -1 for a ``ZooError``."""
    try:
        with Zoo.open(folder, space=SPACE, read_only=read_only) as zoo:
            n_batches = len(zoo) // BATCH
            state = {id: vector for number in range(n_batches) for id, vector in batch_of(0, number).items()}
            assert len(zoo) == len(state) and same(zoo.search(QUERY, 99), nearest(state, QUERY, 99))
            assert list(zoo.models()) == models(sorted(state))
            return n_batches
    except ZooError as error:
        assert not sound and "\n" not in str(error)
        return -1


@pytest.mark.parametrize("read_only", [False, True])
def test_the_log_of_a_killed_writer(killed: Path, tmp_path: Path, read_only: bool) -> None:
    """A sound log has all commits. One that is damaged or missing has those before the damage, or gives an error."""
    content = (killed / f"{CATALOGUE}-wal").read_bytes()
    rng = np.random.default_rng(8)
    n = 200 if read_only else 60  # a writer syncs the disk: slower
    contents = [
        content,
        None,
        *(content[:size] for size in (0, 1, 31, 32, 33, 8000, *rng.integers(0, len(content), n // 4).tolist())),
        content + b"x" * 99,
        content + content,
    ]
    offsets = [*range(0, 56, 1 if read_only else 5), *rng.integers(0, len(content), n).tolist()]
    contents += [
        content[:offset] + bytes([content[offset] ^ 1 << offset % 8]) + content[offset + 1 :] for offset in offsets
    ]
    found = []
    for content in contents:
        folder = shutil.copytree(killed, tmp_path / "zoo")
        log = folder / f"{CATALOGUE}-wal"
        log.unlink() if content is None else log.write_bytes(content)
        found.append(check_batches(folder, read_only, sound=content is content))
        shutil.rmtree(folder)
    assert found[0] == 3 and set(found) <= {-1, 0, 1, 2, 3} and len(set(found)) > 2


@pytest.mark.parametrize("read_only", [False, True])
def test_the_catalogue_of_a_killed_writer(killed: Path, tmp_path: Path, read_only: bool) -> None:
    """The same with a damaged catalogue beside a sound log."""
    content = (killed / CATALOGUE).read_bytes()
    rng = np.random.default_rng(8)
    contents = [content[:size] for size in (0, 1, 99, 100, 4096, 8192, len(content) - 1)] + [content + b"x" * 99]
    contents += [
        content[:offset] + bytes([content[offset] ^ 1 << offset % 8]) + content[offset + 1 :]
        for offset in [*range(100), *rng.integers(0, len(content), 60).tolist()]
    ]
    for content in contents[:: 1 if read_only else 4]:
        folder = shutil.copytree(killed, tmp_path / "zoo")
        (folder / CATALOGUE).write_bytes(content)
        check_batches(folder, read_only, sound=False)
        shutil.rmtree(folder)


@pytest.mark.parametrize("reader_before", [False, True])
def test_the_journal_of_a_killed_writer(catalogue: Path, tmp_path: Path, reader_before: bool) -> None:
    """A reader rolls back what a killed writer, or another program, left in a journal."""
    folder = shutil.copytree(catalogue.parent, tmp_path / "zoo")
    reader = Zoo.open(folder, read_only=True) if reader_before else None
    with closing(sqlite3.connect(catalogue, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.execute("UPDATE vectors SET vector = zeroblob(9000)")
        connection.execute("UPDATE models SET name = 'another'")
        for path in (catalogue, catalogue.with_name(f"{CATALOGUE}-journal")):  # as they are on the disk, in the middle
            (folder / path.name).write_bytes(path.read_bytes())
        connection.execute("ROLLBACK")
    assert (folder / f"{CATALOGUE}-journal").stat().st_size > 8192
    if reader:
        assert same(reader.search(QUERY, 10), EXPECTED)
        reader.close()
    check_zoo(folder, True)
    check_zoo(folder, False)


@pytest.mark.parametrize("content", [None, b"", b"x", b"x" * 9000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_damaged_lock_file(catalogue: Path, content: bytes | None) -> None:
    """Whatever the lock file contains, the zoo can be read, and is written or refused by a ``ZooError``."""
    lock = catalogue.with_name(LOCK)
    lock.unlink() if content is None else lock.write_bytes(content)
    check_zoo(catalogue.parent, True)
    try:
        check_zoo(catalogue.parent, False)
    except ZooError as error:
        assert "\n" not in str(error)
    check_zoo(catalogue.parent, True)


def test_missing_catalogue(catalogue: Path) -> None:
    """A reader raises an error while the file is missing, and goes on when it is back."""
    with Zoo.open(catalogue.parent, read_only=True) as zoo:
        catalogue.rename(catalogue.with_name("away"))
        with pytest.raises(ZooError, match="No such file"):
            zoo.search(QUERY, 1)
        catalogue.with_name("away").rename(catalogue)
        assert same(zoo.search(QUERY, 10), EXPECTED)


@pytest.mark.parametrize("kind", ["exact", "codes"])
def test_bits_flipped_beside_a_saved_engine(catalogue: Path, kind: str) -> None:
    """A damaged catalogue with a sound saved engine gives a ``ZooError``, or the right results."""
    with Zoo.open(catalogue.parent) as zoo:
        zoo.save_engine(kind)
    rng = np.random.default_rng(12)
    check_contents(catalogue, True, flips(catalogue, rng.integers(0, catalogue.stat().st_size, 120).tolist()))


def alter(catalogue: Path, statement: str) -> None:
    """Change a catalogue directly in SQLite."""
    with closing(sqlite3.connect(catalogue)) as connection, connection:
        connection.execute(statement)


def search_all(zoo: Zoo) -> object:
    """Search so that all vectors and models are read."""
    return zoo.search(QUERY, len(IDS))


@pytest.mark.parametrize(
    ("statement", "use"),
    [
        ("UPDATE vectors SET vector = zeroblob(48) WHERE slot = 65", search_all),
        ("UPDATE vectors SET vector = x'00' WHERE slot = 65", search_all),
        ("UPDATE vectors SET vector = 'text' WHERE slot = 65", search_all),
        ("UPDATE vectors SET scale = 1 WHERE slot = 65", search_all),
        ("UPDATE vectors SET bias = bias + 1 WHERE slot = 65", search_all),
        ("UPDATE vectors SET bias = 'text' WHERE slot = 65", lambda zoo: zoo.positions_by_id(["m07"])),
        ("UPDATE vectors SET slot = 67 WHERE slot = 65", search_all),
        (
            "UPDATE vectors SET vector = (SELECT vector FROM vectors WHERE slot = 66) WHERE slot = 64",
            lambda zoo: zoo.vector("m07"),
        ),
        ("DELETE FROM vectors WHERE slot = 65", search_all),
        ("DELETE FROM vectors WHERE key = 8", search_all),
        ("DELETE FROM models WHERE key = 8", search_all),
        ("UPDATE models SET name = 'Another' WHERE key = 8", lambda zoo: zoo.get("m07")),
        ("UPDATE models SET facts = '{' WHERE key = 8", lambda zoo: list(zoo.models())),
        ("UPDATE models SET evidence = 1 WHERE key = 8", search_all),
        ("UPDATE models SET evidence = 'many' WHERE key = 8", search_all),
        ("UPDATE models SET name = x'ff' WHERE key = 8", search_all),
        ("UPDATE models SET name = 3.5 WHERE key = 8", search_all),
        ("UPDATE files SET facts = '{' WHERE key = 8", lambda zoo: zoo.known_files()),
        ("UPDATE files SET facts = '[]' WHERE key = 8", lambda zoo: zoo.files_by_model(["m07"])),
        ("UPDATE files SET name = x'ff' WHERE key = 8", lambda zoo: zoo.known_files()),
        ("DELETE FROM zoo", len),
        ("INSERT INTO zoo SELECT * FROM zoo", len),
        ("UPDATE zoo SET dim = 'many'", len),
        ("UPDATE zoo SET dim = 11", lambda zoo: zoo.search(QUERY[:11], 1)),
        ("UPDATE fingerprints SET data = x'00' WHERE key = 8", lambda zoo: zoo.fingerprints()),
        ("DROP TABLE files", lambda zoo: zoo.known_files()),
    ],
)
def test_changed_rows(catalogue: Path, statement: str, use: Callable[[Zoo], object]) -> None:
    """Rows that are not as they were written are detected when they are read."""
    alter(catalogue, statement)
    with pytest.raises(ZooDamaged), Zoo.open(catalogue.parent, read_only=True) as zoo:
        use(zoo)
