"""Words and tags by which a model is found, derived from its row and those of its files."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

from loradex.index.entry import Entry
from loradex.index.errors import ZooDamaged
from loradex.index.model import KnownFile
from loradex.index.sqlite.rows import (
    SELECT_FILES,
    SELECT_MODELS,
    Row,
    checked_fields,
    damaged_row_error,
    file_of_row,
    is_damaged,
    select_in,
    to_stored,
)

CREATE_WORDS: Final = (
    "CREATE VIRTUAL TABLE words USING fts5 (name, tags, notes, tokenize = 'unicode61 remove_diacritics 2')"
)
PAGE: Final = 1000  # models

StoredWords = tuple[tuple[Any, ...], frozenset[Any]]  # the columns of ``words``, and the tags


def put_words(connection: Connection, key: int, entry: Entry) -> None:
    """Insert the tags of a model, and its words for full-text search."""
    texts = entry.texts
    connection.executemany("INSERT INTO tags VALUES (?, ?)", [(tag, key) for tag in texts.tag_set])
    connection.execute("INSERT INTO words (rowid, name, tags, notes) VALUES (?, ?, ?, ?)", (key, *texts.words))


def delete_words(connection: Connection, key: int) -> None:
    """Delete the tags and words of a model."""
    connection.execute("DELETE FROM tags WHERE key = ?", (key,))
    connection.execute("DELETE FROM words WHERE rowid = ?", (key,))


def refresh_words(connection: Connection, path: Path, keys: Iterable[int]) -> None:
    """Write the words and tags of models again, if their rows and files give others than those that are stored.

    Raises:
        ZooDamaged: a row is not as it was written.
    """
    listed = list(keys)
    rows = select_in(connection, f"{SELECT_MODELS} WHERE models.key IN", listed)
    entries, stored = entries_by_key(connection, path, rows), stored_words(connection, listed)
    for row in rows:
        if (entry := entries.get(row[-1])) is None:
            raise damaged_row_error(path, row[0])
        if stored.get(row[-1]) != words_of(entry):
            delete_words(connection, row[-1])
            put_words(connection, row[-1], entry)


def rewrite_words(connection: Connection, path: Path) -> None:
    """Derive all words and tags again; models with a damaged row get none, files with a damaged row are forgotten."""
    for row in connection.execute(SELECT_FILES).fetchall():
        if is_damaged_file(row, path):
            connection.execute("DELETE FROM files WHERE path = ?", (row[0],))
    connection.execute("DROP TABLE words")
    connection.execute(CREATE_WORDS)
    connection.execute("DELETE FROM tags")
    last = -1
    while rows := connection.execute(
        f"{SELECT_MODELS} WHERE models.key > ? ORDER BY key LIMIT {PAGE}", (last,)
    ).fetchall():
        for key, entry in entries_by_key(connection, path, rows).items():
            put_words(connection, key, entry)
        last = rows[-1][-1]


def entries_by_key(connection: Connection, path: Path, rows: Sequence[Row]) -> dict[int, Entry]:
    """Return the entries of rows of ``SELECT_MODELS`` with the texts of their files, by key, without damaged rows."""
    file_rows = select_in(connection, f"{SELECT_FILES} WHERE models.id IN", [row[0] for row in rows])
    files = group_by_model([row for row in file_rows if not is_damaged_file(row, path)], path)
    entries = dict[int, Entry]()
    for row in rows:
        with suppress(ZooDamaged, ValueError, AttributeError):
            entry = Entry.from_fields(*checked_fields(row, path)[:-1])  # the last one is the format
            entries[row[-1]] = entry.with_files(files.get(row[0], ()))
    return entries


def is_damaged_file(row: Row, path: Path) -> bool:
    """Whether a row of ``SELECT_FILES`` is not as it was written."""
    return is_damaged(file_of_row, row, path)


def words_of(entry: Entry) -> StoredWords:
    """Return the words and tags of an entry, as ``stored_words``."""
    return entry.texts.words, entry.texts.tag_set


def stored_words(connection: Connection, keys: Sequence[int]) -> dict[int, StoredWords]:
    """Return the stored words and tags of models, by key."""
    tags: dict[int, list[Any]] = {}
    for tag, key in select_in(connection, "SELECT tag, key FROM tags WHERE key IN", keys):
        tags.setdefault(key, []).append(tag)
    rows = select_in(connection, "SELECT rowid, name, tags, notes FROM words WHERE rowid IN", keys)
    return {key: (tuple(words), frozenset(tags.get(key, ()))) for key, *words in rows}


def files_by_id(connection: Connection, path: Path, ids: Sequence[str]) -> dict[str, list[KnownFile]]:
    """Return the files of some models, by id of the model.

    Raises:
        ZooDamaged: a row is not as it was written.
    """
    return group_by_model(select_in(connection, f"{SELECT_FILES} WHERE models.id IN", ids), path)


def group_by_model(rows: Iterable[Row], path: Path) -> dict[str, list[KnownFile]]:
    """Return the files of rows of ``SELECT_FILES``, by id of the model.

    Raises:
        ZooDamaged: a row is not as it was written.
    """
    files: dict[str, list[KnownFile]] = {}
    for row in rows:
        files.setdefault(row[3], []).append(file_of_row(row, path))
    return files


def keys_of_files(connection: Connection, paths: Iterable[str]) -> set[int]:
    """Return the keys of the models that some paths were files of."""
    rows = select_in(connection, "SELECT key FROM files WHERE path IN", list(map(to_stored, paths)))
    return {key for (key,) in rows if key is not None}
