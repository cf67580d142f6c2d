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
from loradex.index.sqlite.engine import ExactEngine
from loradex.index.sqlite.rows import SELECT_MODELS, Row, checked_bytes, from_stored, model_of_row, texts_of_row
from loradex.index.sqlite.saved_engines import READ_ERRORS, largest_key, read_segment, saved_engines
from loradex.index.sqlite.schema import CREATE_WORDS

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
    done, total = 0, int(connection.execute("SELECT count(*) FROM models").fetchone()[0])
    for page in select_pages(connection, f"{SELECT_MODELS} ORDER BY key"):
        for row in page:
            yield from model_problems(connection, row, folder, path)
        done += len(page)
        progress(done, total)
    for table, column, length in (("vectors", "vector", 4 * dim), ("fingerprints", "data", None)):
        for row in select_damaged(connection, table, column, length, path):
            yield f"{path}: {table} of key {row[0]!r} are not as they were written"
    expected, found = connection.execute("SELECT vectors, (SELECT count(*) FROM vectors) FROM zoo").fetchone()
    if expected != found:
        yield f"{path}: expected {expected} vectors, found {found}"
    yield from word_problems(connection, path)
    yield from saved_engine_problems(connection, catalogue)


def select_pages(connection: Connection, statement: str) -> Iterator[list[Row]]:
    """Yield the rows of a statement in pages."""
    rows = connection.execute(statement)
    while page := rows.fetchmany(PAGE):
        yield page


def select_damaged(connection: Connection, table: str, column: str, length: int | None, path: Path) -> Iterator[Row]:
    """Yield the rows (key, bytes, crc) of a table that are not as they were written."""
    for page in select_pages(connection, f"SELECT key, {column}, crc FROM {table} ORDER BY key"):
        yield from (row for row in page if is_damaged(row, length, path))


def is_damaged(row: Row, length: int | None, path: Path) -> bool:
    """Whether the bytes of a row (key, bytes, crc) are not as they were written."""
    try:
        checked_bytes(row, length, path)
    except ZooDamaged:
        return True
    return False


def entry_of_row(row: Row, path: Path) -> Entry | None:
    """Return the entry of a row of ``SELECT_MODELS``, or None if the row is damaged."""
    try:
        model_of_row(row, path)
        return Entry.from_texts(*texts_of_row(row))
    except (ZooDamaged, ValueError, AttributeError):
        return None


def model_problems(connection: Connection, row: Row, folder: Path, path: Path) -> Iterator[str]:
    """Yield the problems of a row of ``SELECT_MODELS``, of what is derived from it, and of its preview."""
    entry = entry_of_row(row, path)
    if entry is None:
        yield f"{path}: model {row[0]!r} is not as it was written"
        return
    key, format, rank = row[-1], from_stored(row[8]), row[9]
    tags = {tag for (tag,) in connection.execute("SELECT tag FROM tags WHERE key = ?", (key,))}
    words = connection.execute("SELECT name, tags, notes FROM words WHERE rowid = ?", (key,)).fetchone()
    if tags != entry.tags or (words, format, rank) != (entry.words, entry.format, entry.rank):
        yield f"{path}: words and tags of model {entry.id!r} are not those of its row"
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
    """Yield saved engines of past states that are damaged, or that differ from the catalogue's vectors."""
    path, dim = catalogue.path, catalogue.dim
    for saved in saved_engines(catalogue.folder):
        if not is_past_state(connection, saved.state):
            continue  # it will never be used
        try:
            segment = read_segment(saved, dim, largest_key(connection))
            removed, changed, _ = read_changes(connection, saved.state.generation, dim, path)
            _, keys, vectors = read_changes(connection, -1, dim, path)
        except ZooDamaged:
            continue  # reported with the rows of the catalogue
        except READ_ERRORS as error:
            yield f"{saved.folder}: the engine is not as it was written ({error}); it is not used"
            continue
        in_segment, in_catalogue = ~np.isin(segment.keys, np.union1d(removed, changed)), ~np.isin(keys, changed)
        found = {name: array[in_segment] for name, array in segment.engine.arrays().items()}
        unchanged = vectors[in_catalogue]
        is_exact = isinstance(segment.engine, ExactEngine)
        expected = {"vectors": unchanged} if is_exact else type(segment.engine).from_vectors(unchanged).arrays()
        if not np.array_equal(segment.keys[in_segment], keys[in_catalogue]) or any(
            not np.array_equal(found[name], expected[name]) for name in found
        ):
            yield f"{saved.folder}: the engine is not that of the catalogue's vectors; run `loradex zoo rebuild`"
