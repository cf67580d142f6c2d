"""Looking after a zoo: what of it is not as it was written, and how much of it can be made anew from the rest."""

from collections.abc import Callable, Iterator
from pathlib import Path
from sqlite3 import Connection, DatabaseError
from typing import Final

import numpy as np

from loradex.index.errors import ZooDamaged
from loradex.index.sqlite.engine import Exact
from loradex.index.sqlite.rows import MODEL, Row, entry_of, from_row, from_text, put_words, sound, take_vector
from loradex.index.sqlite.saved_engines import UNSOUND, engines_on_disk, most_keys, read_segment
from loradex.index.sqlite.schema import WORDS
from loradex.index.sqlite.snapshot import read_changes

MOST_PROBLEMS: Final = 20  # that SQLite lists of its own
PAGE: Final = 1000
Progress = Callable[[int, int], None]


def problems_of(connection: Connection, folder: Path, path: Path, dim: int, progress: Progress) -> Iterator[str]:
    """Everything that is not as it was written, a line each: pages, rows, checksums, words, previews and engines on the disk."""
    for (said,) in connection.execute(f"PRAGMA integrity_check({MOST_PROBLEMS})"):
        if said != "ok":
            yield f"{path}: {said}"
    for table, *_ in connection.execute("PRAGMA foreign_key_check").fetchmany(MOST_PROBLEMS):
        yield f"{path}: a row of {table} belongs to no model"
    total = int(connection.execute("SELECT count(*) FROM models").fetchone()[0])
    done = 0
    for page in pages(connection, f"{MODEL} ORDER BY key"):
        for row in page:
            yield from problems_of_row(connection, row, folder, path)
        done += len(page)
        progress(done, total)
    for table, column, length in (("vectors", "vector", 4 * dim), ("fingerprints", "data", None)):
        for row in select_damaged(connection, table, column, length, path):
            yield f"{path}: {table} of key {row[0]!r} are not as they were written"
    said, found = connection.execute("SELECT vectors, (SELECT count(*) FROM vectors) FROM zoo").fetchone()
    if said != found:
        yield f"{path}: expected {said} vectors, found {found}"
    yield from problems_of_words(connection, path)
    yield from problems_of_engines(connection, folder, path, dim)


def pages(connection: Connection, statement: str) -> Iterator[list[Row]]:
    """The rows of a statement, some at a time."""
    rows = connection.execute(statement)
    while page := rows.fetchmany(PAGE):
        yield page


def is_sound(row: Row, length: int | None, path: Path) -> bool:
    """Whether the bytes of a row (key, bytes, crc) are those that were written."""
    try:
        sound(row, length, path)
    except ZooDamaged:
        return False
    return True


def problems_of_row(connection: Connection, row: Row, folder: Path, path: Path) -> Iterator[str]:
    """What is wrong with a row of ``models`` and what was made from it."""
    try:
        model = from_row(row, path)
        entry = entry_of(tuple(map(from_text, row[:8])))
    except (ZooDamaged, ValueError, AttributeError):
        yield f"{path}: model {row[0]!r} is not as it was written"
        return
    tags = {tag for (tag,) in connection.execute("SELECT tag FROM tags WHERE key = ?", row[-1:])}
    words = connection.execute("SELECT name, tags, notes FROM words WHERE rowid = ?", row[-1:]).fetchone()
    if tags != entry.tags or words != entry.words or (entry.texts[8], entry.rank) != (from_text(row[8]), row[9]):
        yield f"{path}: words and tags of model {model.id!r} are not those of its row"
    if model.preview and not (folder / model.preview).is_file():
        yield f"{folder / model.preview}: expected the drawing of model {model.id!r}, found none"


def problems_of_words(connection: Connection, path: Path) -> Iterator[str]:
    """Words of no model, and an index of words that is not that of the words, which is made once more to compare."""
    (orphans,) = connection.execute("SELECT count(*) FROM words WHERE rowid NOT IN (SELECT key FROM models)").fetchone()
    if orphans:
        yield f"{path}: {orphans} rows of words belong to no model"
    for statement in (
        WORDS.replace("words", "temp.words_again", 1),
        "INSERT INTO temp.words_again (rowid, name, tags, notes) SELECT rowid, name, tags, notes FROM main.words",
        "CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, words, instance)",
        "CREATE VIRTUAL TABLE temp.vocabulary_again USING fts5vocab(temp, words_again, instance)",
    ):
        connection.execute(statement)
    try:
        pairs = [("vocabulary", "vocabulary_again"), ("vocabulary_again", "vocabulary")]
        if any(
            connection.execute(f"SELECT * FROM temp.{one} EXCEPT SELECT * FROM temp.{other} LIMIT 1").fetchone()
            for one, other in pairs
        ):
            yield f"{path}: the index of words is not that of the words"
    except DatabaseError as error:
        yield f"{path}: the index of words cannot be read ({error})"
    finally:
        for name in ("vocabulary", "vocabulary_again", "words_again"):
            connection.execute(f"DROP TABLE temp.{name}")


def problems_of_engines(connection: Connection, folder: Path, path: Path, dim: int) -> Iterator[str]:
    """Engines on the disk that differ from the catalogue's vectors; those of states that it does not know are never used."""
    for cached in engines_on_disk(folder):
        if not cached.state.known_to(connection):
            continue
        try:
            segment = read_segment(cached, dim, most_keys(connection))
            gone, changed, _ = read_changes(connection, cached.state.generation, dim, path)
            everything = read_changes(connection, -1, dim, path)
        except ZooDamaged:
            continue  # told above
        except UNSOUND as error:
            yield f"{cached.folder}: the engine is not as it was written ({error}); it is not used"
            continue
        kept = ~np.isin(segment.keys, np.union1d(gone, changed))
        there = ~np.isin(everything[1], changed)
        expected = (
            everything[2][there] if isinstance(segment.engine, Exact) else type(segment.engine).of(everything[2][there])
        )
        made = {"vectors": expected} if isinstance(expected, np.ndarray) else expected.arrays()
        found = {name: array[kept] for name, array in segment.engine.arrays().items()}
        if not np.array_equal(segment.keys[kept], everything[1][there]) or any(
            not np.array_equal(found[name], made[name]) for name in found
        ):
            yield f"{cached.folder}: the engine is not that of the catalogue's vectors; run `loradex zoo rebuild`"


def mend(connection: Connection, path: Path, dim: int, generation: int) -> list[str]:
    """Make anew what follows from sound rows, and take out models with a row that is damaged or lost.

    Their ids come back; their files are forgotten, so that the next ``loradex index`` reads them again.
    """
    connection.execute("REINDEX")
    for (key,) in connection.execute("SELECT key FROM vectors WHERE key NOT IN (SELECT key FROM models)").fetchall():
        take_vector(connection, key, generation)
    for table in ("fingerprints", "files"):
        connection.execute(f"DELETE FROM {table} WHERE key NOT IN (SELECT key FROM models)")
    without = "SELECT key FROM models WHERE found_by = 'weights' AND key NOT IN (SELECT key FROM vectors)"
    damaged = {key for (key,) in connection.execute(without)}
    damaged |= {row[0] for row in select_damaged(connection, "vectors", "vector", 4 * dim, path)}
    damaged |= {row[0] for row in select_damaged(connection, "fingerprints", "data", None, path)}
    connection.execute("DROP TABLE words")
    connection.execute(WORDS)
    connection.execute("DELETE FROM tags")
    lost = []
    for row in connection.execute(f"{MODEL} ORDER BY key").fetchall():
        try:
            from_row(row, path)
            entry = entry_of(tuple(map(from_text, row[:8])))
        except (ZooDamaged, ValueError, AttributeError):
            damaged.add(row[-1])
        if row[-1] in damaged:
            lost.append(str(row[0]))
            take_vector(connection, row[-1], generation)
            connection.execute("DELETE FROM models WHERE key = ?", row[-1:])
        else:
            put_words(connection, row[-1], entry)
    connection.execute("UPDATE zoo SET vectors = (SELECT count(*) FROM vectors)")
    return lost


def select_damaged(connection: Connection, table: str, column: str, length: int | None, path: Path) -> Iterator[Row]:
    """The rows (key, bytes, crc) of a table that are not as they were written."""
    for page in pages(connection, f"SELECT key, {column}, crc FROM {table} ORDER BY key"):
        yield from (row for row in page if not is_sound(row, length, path))
