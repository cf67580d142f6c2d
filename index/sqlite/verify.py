"""Checks of all data of a zoo: pages, rows, checksums, words, previews and saved engines."""

from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Connection, DatabaseError
from typing import Final

import numpy as np

from loradex.index.base import Progress
from loradex.index.entry import Entry
from loradex.index.errors import ZooDamaged
from loradex.index.sqlite.catalogue import Catalogue
from loradex.index.sqlite.commits import is_past_state, read_changes
from loradex.index.sqlite.derived_words import (
    CREATE_WORDS,
    StoredWords,
    entries_by_key,
    is_damaged_file,
    stored_words,
    words_of,
)
from loradex.index.sqlite.engine import ExactEngine
from loradex.index.sqlite.rows import (
    SELECT_FILES,
    SELECT_MODELS,
    SELECT_POSITIONS,
    Row,
    check_position,
    checked_bytes,
    from_stored,
    is_damaged,
)
from loradex.index.sqlite.saved_engines import READ_ERRORS, largest_key, read_segment, saved_engines

MAX_PROBLEMS: Final = 20  # of each kind that SQLite lists
PAGE: Final = 1000  # rows


def find_problems(connection: Connection, catalogue: Catalogue, progress: Progress) -> Iterator[str]:
    """Yield everything that is not as it was written, one line each."""
    path, folder, dim = catalogue.path, catalogue.folder, catalogue.dim
    for (line,) in connection.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})"):
        if line != "ok":
            yield f"{path}: {line}"
    for table, *_ in connection.execute("PRAGMA foreign_key_check").fetchmany(MAX_PROBLEMS):
        yield f"{path}: a row of {table} belongs to no model"
    yield from all_model_problems(connection, folder, path, progress)
    yield from position_problems(connection, dim, path)
    for row in select_damaged_fingerprints(connection, path):
        yield f"{path}: the fingerprint of key {row[0]!r} is not as it was written"
    for row in connection.execute(f"{SELECT_FILES} ORDER BY files.path"):
        if is_damaged_file(row, path):
            yield f"{path}: the row of file {row[0]!r} is not as it was written"
    yield from word_problems(connection, path)
    yield from saved_engine_problems(connection, catalogue)


def all_model_problems(connection: Connection, folder: Path, path: Path, progress: Progress) -> Iterator[str]:
    """Yield the problems of the rows of models, see ``model_problems``."""
    done, total = 0, int(connection.execute("SELECT count(*) FROM models").fetchone()[0])
    for page in select_pages(connection, f"{SELECT_MODELS} ORDER BY key"):
        entries = entries_by_key(connection, path, page)
        stored = stored_words(connection, [row[-1] for row in page])
        for row in page:
            yield from model_problems(row, entries.get(row[-1]), stored.get(row[-1]), folder, path)
        done += len(page)
        progress(done, total)


def position_problems(connection: Connection, dim: int, path: Path) -> Iterator[str]:
    """Yield positions that are missing, too many, or not as they were written."""
    for id in select_misplaced(connection):
        yield f"{path}: model {id!r} does not have the positions that its row lists"
    for row in select_damaged_positions(connection, dim, path):
        yield f"{path}: the position in slot {row[0]!r} is not as it was written"
    expected, found = connection.execute("SELECT vectors, (SELECT count(*) FROM vectors) FROM zoo").fetchone()
    if expected != found:
        yield f"{path}: expected {expected} positions, found {found}"


def select_pages(connection: Connection, statement: str) -> Iterator[list[Row]]:
    """Yield the rows of a statement in pages."""
    rows = connection.execute(statement)
    while page := rows.fetchmany(PAGE):
        yield page


def select_misplaced(connection: Connection) -> list[str]:
    """Return the ids of the models whose positions are not of the kinds of evidence that their rows list."""
    statement = (
        "SELECT id FROM models WHERE evidence IS NOT (SELECT coalesce(sum(1 << slot % 8), 0) FROM vectors"
        " WHERE slot BETWEEN 8 * models.key AND 8 * models.key + 7 AND vectors.key = models.key)"
    )
    return [str(id) for (id,) in connection.execute(statement)]


def select_damaged_positions(connection: Connection, dim: int, path: Path) -> Iterator[Row]:
    """Yield the rows of ``SELECT_POSITIONS`` that are not as they were written."""
    for page in select_pages(connection, f"{SELECT_POSITIONS} ORDER BY slot"):
        yield from (row for row in page if is_damaged(check_position, row, 4 * dim, path))


def select_damaged_fingerprints(connection: Connection, path: Path) -> Iterator[Row]:
    """Yield the rows (key, bytes, crc) of fingerprints that are not as they were written."""
    for page in select_pages(connection, "SELECT key, data, crc FROM fingerprints ORDER BY key"):
        yield from (row for row in page if is_damaged(checked_bytes, row, path))


def model_problems(
    row: Row, entry: Entry | None, stored: StoredWords | None, folder: Path, path: Path
) -> Iterator[str]:
    """Yield the problems of a row of ``SELECT_MODELS``, of what is derived from it, and of its preview."""
    if entry is None:
        yield f"{path}: model {row[0]!r} is not as it was written"
        return
    if stored != words_of(entry) or (from_stored(row[7]), row[8]) != (entry.format, entry.rank):
        yield f"{path}: words and tags of model {entry.id!r} are not those of its row and its files"
    if entry.preview and not (folder / entry.preview).is_file():
        yield f"{folder / entry.preview}: expected the preview of model {entry.id!r}, found none"


def word_problems(connection: Connection, path: Path) -> Iterator[str]:
    """Yield words of no model, and whether the full-text index differs from one that is built again from the words."""
    (orphans,) = connection.execute("SELECT count(*) FROM words WHERE rowid NOT IN (SELECT key FROM models)").fetchone()
    if orphans:
        yield f"{path}: {orphans} rows of words belong to no model"
    for statement in (
        CREATE_WORDS.replace("words", "temp.words_again", 1),
        "INSERT INTO temp.words_again (rowid, name, tags, notes) SELECT rowid, name, tags, notes FROM main.words",
        "CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, words, instance)",
        "CREATE VIRTUAL TABLE temp.vocabulary_again USING fts5vocab(temp, words_again, instance)",
    ):
        connection.execute(statement)
    try:
        for left, right in (("vocabulary", "vocabulary_again"), ("vocabulary_again", "vocabulary")):
            statement = f"SELECT * FROM temp.{left} EXCEPT SELECT * FROM temp.{right} LIMIT 1"
            if connection.execute(statement).fetchone():
                yield f"{path}: the index of words is not that of the words"
                break
    except DatabaseError as error:
        yield f"{path}: the index of words cannot be read ({error})"
    finally:
        for name in ("vocabulary", "vocabulary_again", "words_again"):
            connection.execute(f"DROP TABLE temp.{name}")


def saved_engine_problems(connection: Connection, catalogue: Catalogue) -> Iterator[str]:
    """Yield saved engines of past states that are damaged, or that differ from the catalogue's positions."""
    path, dim = catalogue.path, catalogue.dim
    for saved in saved_engines(catalogue.folder):
        if not is_past_state(connection, saved.state):
            continue  # it will never be used
        try:
            segment = read_segment(saved, dim, largest_key(connection))
            removed, changed, _ = read_changes(connection, saved.state.generation, dim, path)
            _, slots, rows = read_changes(connection, -1, dim, path)
        except ZooDamaged:
            continue  # reported with the rows of the catalogue
        except READ_ERRORS as error:
            yield f"{saved.folder}: the engine is not as it was written ({error}); it is not used"
            continue
        in_segment, in_catalogue = ~np.isin(segment.slots, np.union1d(removed, changed)), ~np.isin(slots, changed)
        found = {name: array[in_segment] for name, array in segment.engine.arrays().items()}
        unchanged = rows[in_catalogue]
        is_exact = isinstance(segment.engine, ExactEngine)
        expected = {"vectors": unchanged} if is_exact else type(segment.engine).from_vectors(unchanged).arrays()
        if not np.array_equal(segment.slots[in_segment], slots[in_catalogue]) or any(
            not np.array_equal(found[name], expected[name]) for name in found
        ):
            yield f"{saved.folder}: the engine is not that of the catalogue's positions; run `loradex zoo rebuild`"
