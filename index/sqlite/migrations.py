"""The tables of the catalogue, as a list of migrations.

To change the tables, append a function to ``MIGRATIONS``; never edit one that was released. Each reads the rows of its
own earlier layout. None writes words and tags: they are derived again after the last one (``schema.migrate``).
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final
from zlib import crc32

from loradex.index.entry import Entry
from loradex.index.sqlite.derived_words import CREATE_WORDS
from loradex.index.sqlite.rows import (
    bytes_checksum,
    damaged_row_error,
    from_stored,
    position_checksum,
    row_checksum,
    to_stored,
)

NO_CHECKSUM: Final = -1  # of a row that was damaged before it was migrated
Migration = Callable[[Connection], None]


def create_tables(connection: Connection) -> None:
    """Version 1: the row of the zoo itself, models, their vectors, and the files that were indexed."""
    connection.execute(
        "CREATE TABLE migrations (name TEXT PRIMARY KEY, applied TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    )
    # zoo.vectors is the number of rows that table vectors must have; zoo.generation is replaced by commits in version 3
    connection.execute(
        "CREATE TABLE zoo (space TEXT NOT NULL, dim INTEGER NOT NULL, generation INTEGER NOT NULL, vectors INTEGER NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE models (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, family TEXT NOT NULL, found_by TEXT NOT NULL,"
        " path TEXT, concept TEXT, preview TEXT, facts TEXT NOT NULL, crc INTEGER NOT NULL)"
    )
    # a table of their own, so that loading an engine reads nothing else
    connection.execute(
        "CREATE TABLE vectors (id TEXT PRIMARY KEY NOT NULL REFERENCES models (id) ON DELETE CASCADE, vector BLOB NOT NULL, crc INTEGER NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE files (path TEXT PRIMARY KEY NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
        " model_id TEXT REFERENCES models (id) ON DELETE CASCADE, refusal TEXT)"
    )
    connection.execute("CREATE INDEX files_by_model ON files (model_id)")


def create_fingerprints(connection: Connection) -> None:
    """Version 2: fingerprints, in a table of their own, so that comparing them reads nothing else."""
    connection.execute(
        "CREATE TABLE fingerprints (id TEXT PRIMARY KEY NOT NULL REFERENCES models (id) ON DELETE CASCADE, data BLOB NOT NULL, crc INTEGER NOT NULL)"
    )


def give_keys(connection: Connection) -> None:
    """Version 3: integer keys of models, never reused; filters and text search; the changes of each commit."""
    for statement in (
        "ALTER TABLE zoo ADD COLUMN engine TEXT NOT NULL DEFAULT 'auto'",
        # the token distinguishes states of the same number, as after a backup was restored
        "CREATE TABLE commits (generation INTEGER PRIMARY KEY NOT NULL, token BLOB NOT NULL)",
        "INSERT INTO commits SELECT generation, randomblob(8) FROM zoo",
        "CREATE TABLE new_models (key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, name TEXT NOT NULL, family TEXT NOT NULL,"
        " found_by TEXT NOT NULL, path TEXT, concept TEXT, preview TEXT, facts TEXT NOT NULL, format TEXT, rank INTEGER, added INTEGER NOT NULL,"
        " crc INTEGER NOT NULL)",
        "CREATE TABLE new_vectors (key INTEGER PRIMARY KEY NOT NULL REFERENCES new_models (key) ON DELETE CASCADE, vector BLOB NOT NULL,"
        " crc INTEGER NOT NULL, generation INTEGER NOT NULL)",
        "CREATE TABLE removed (key INTEGER NOT NULL, generation INTEGER NOT NULL)",  # deleted vectors
        "CREATE TABLE new_fingerprints (key INTEGER PRIMARY KEY NOT NULL REFERENCES new_models (key) ON DELETE CASCADE, data BLOB NOT NULL,"
        " crc INTEGER NOT NULL)",
        # reader: identifies the code that read the file, as another may find more in it
        "CREATE TABLE new_files (path TEXT PRIMARY KEY NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
        " key INTEGER REFERENCES new_models (key) ON DELETE CASCADE, refusal TEXT, reader TEXT NOT NULL)",
        "CREATE TABLE tags (tag TEXT NOT NULL, key INTEGER NOT NULL REFERENCES new_models (key) ON DELETE CASCADE, PRIMARY KEY (tag, key)) WITHOUT ROWID",
        CREATE_WORDS,
    ):
        connection.execute(statement)
    copy_rows(connection)
    for name in ("files", "fingerprints", "vectors", "models"):
        connection.execute(f"DROP TABLE {name}")
    for name in ("models", "vectors", "fingerprints", "files"):
        connection.execute(f"ALTER TABLE new_{name} RENAME TO {name}")
    connection.execute("CREATE INDEX files_by_model ON files (key)")
    connection.execute("CREATE INDEX tags_by_model ON tags (key)")
    connection.execute("CREATE INDEX vectors_by_generation ON vectors (generation)")
    connection.execute("CREATE INDEX removed_by_generation ON removed (generation)")
    for column in ("family", "format", "rank", "added"):
        connection.execute(f"CREATE INDEX models_by_{column} ON models ({column})")


def copy_rows(connection: Connection) -> None:
    """Copy all rows of version 2 into the tables of version 3."""
    keys, now = dict[str, int](), int(time.time())
    select_models = "SELECT id, name, family, found_by, path, concept, preview, facts, crc FROM models ORDER BY rowid"
    for key, row in enumerate(connection.execute(select_models).fetchall(), 1):
        texts, id = tuple(map(from_stored, row[:-1])), row[0]
        if row_checksum(texts) != row[-1]:
            raise damaged_row_error(Path("catalogue"), id)
        entry, keys[id] = Entry.from_fields(*texts[:3], *texts[4:]), key  # type: ignore[arg-type]
        checksum = row_checksum((*texts, entry.format, entry.rank, now))
        values = (key, *row[:-1], to_stored(entry.format), entry.rank, now, checksum)
        connection.execute(f"INSERT INTO new_models VALUES ({', '.join('?' * 13)})", values)
    for table, column in (("vectors", "vector"), ("fingerprints", "data")):
        for id, data, crc in connection.execute(f"SELECT id, {column}, crc FROM {table}").fetchall():
            if crc32(data, crc32(id.encode())) != crc:
                raise damaged_row_error(Path("catalogue"), id)
            values = (keys[id], data, bytes_checksum(keys[id], data))
            if table == "vectors":
                values = (*values, 0)  # the generation
            connection.execute(f"INSERT INTO new_{table} VALUES ({', '.join('?' * len(values))})", values)
    select_files = "SELECT path, size, mtime_ns, model_id, refusal FROM files"
    for path, size, mtime_ns, id, refusal in connection.execute(select_files).fetchall():
        values = (path, size, mtime_ns, keys.get(id), refusal)
        connection.execute("INSERT INTO new_files VALUES (?, ?, ?, ?, ?, '')", values)


def give_evidence(connection: Connection) -> None:
    """Version 4: several positions a model, each by a kind of evidence and with a scale and a bias; texts of files.

    A vector of before is a position by pictures. A row that was damaged stays so: its checksum is one that none has.
    """
    for statement in (
        # bits of the kinds of evidence that give the model a position
        "ALTER TABLE models ADD COLUMN evidence INTEGER NOT NULL DEFAULT 0",
        # slot: eight to a model, a kind of evidence each
        "CREATE TABLE new_vectors (slot INTEGER PRIMARY KEY NOT NULL, key INTEGER NOT NULL REFERENCES models (key) ON DELETE CASCADE,"
        " vector BLOB NOT NULL, scale REAL NOT NULL, bias REAL NOT NULL, crc INTEGER NOT NULL, generation INTEGER NOT NULL)",
        "ALTER TABLE files ADD COLUMN name TEXT",
        "ALTER TABLE files ADD COLUMN facts TEXT",
    ):
        connection.execute(statement)
    connection.executemany("UPDATE models SET (evidence, crc) = (?, ?) WHERE key = ?", models_with_evidence(connection))
    connection.executemany("INSERT INTO new_vectors VALUES (?, ?, ?, 1, 0, ?, ?)", vectors_in_slots(connection))
    for statement in (
        "ALTER TABLE models DROP COLUMN found_by",
        "DROP TABLE vectors",
        "ALTER TABLE new_vectors RENAME TO vectors",
        "CREATE INDEX vectors_by_model ON vectors (key)",
        "CREATE INDEX vectors_by_generation ON vectors (generation)",
        "DROP TABLE removed",  # engines of before are not read
        "CREATE TABLE removed (slot INTEGER NOT NULL, generation INTEGER NOT NULL)",
        "CREATE INDEX removed_by_generation ON removed (generation)",
    ):
        connection.execute(statement)


def models_with_evidence(connection: Connection) -> list[tuple[int, int, int]]:
    """Return evidence, checksum and key of the models of version 3."""
    statement = (
        "SELECT found_by = 'weights' OR key IN (SELECT key FROM vectors), key, crc, id, name, family, found_by, path, concept,"
        " preview, facts, format, rank, added FROM models"
    )
    updated = []
    for evidence, key, crc, *columns, rank, added in connection.execute(statement):
        try:
            texts = list(map(from_stored, columns))
        except (ValueError, AttributeError):
            texts = []
        is_sound = bool(texts) and row_checksum((*texts, rank, added)) == crc
        checksum = row_checksum((*texts[:3], *texts[4:], rank, added, evidence)) if is_sound else NO_CHECKSUM
        updated.append((evidence, checksum, key))
    return updated


def vectors_in_slots(connection: Connection) -> Iterator[tuple[Any, ...]]:
    """Yield slot, key, vector, checksum and generation of the vectors of version 3."""
    for key, vector, crc, generation in connection.execute("SELECT key, vector, crc, generation FROM vectors"):
        slot = 8 * key
        is_sound = isinstance(vector, bytes) and bytes_checksum(key, vector) == crc
        yield slot, key, vector, position_checksum(slot, vector, 1, 0) if is_sound else NO_CHECKSUM, generation


MIGRATIONS: Final[tuple[Migration, ...]] = (create_tables, create_fingerprints, give_keys, give_evidence)
