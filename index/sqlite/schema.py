"""The tables of the catalogue, as a list of migrations.

SQLite's ``application_id`` marks a file as a catalogue of Loradex, and ``user_version`` is the number of migrations
applied. To change the tables, append a function to ``MIGRATIONS``; never edit one that was released.
"""

import time
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection
from typing import Final
from zlib import crc32

from loradex.index.entry import Entry
from loradex.index.errors import RESTORE, ZooDamaged, ZooReadOnly, ZooTooNew
from loradex.index.sqlite.rows import bytes_checksum, damaged_row_error, row_checksum, texts_of_row, to_stored
from loradex.index.sqlite.writes import put_words

APPLICATION_ID: Final = 0x4C4F5258  # "LORX"
CREATE_WORDS: Final = (
    "CREATE VIRTUAL TABLE words USING fts5 (name, tags, notes, tokenize = 'unicode61 remove_diacritics 2')"
)
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
        texts, id = texts_of_row(row), row[0]
        if row_checksum(texts) != row[-1]:
            raise damaged_row_error(Path("catalogue"), id)
        entry, keys[id] = Entry.from_texts(*texts), key
        checksum = row_checksum((*entry.texts, entry.rank, now))
        values = (key, *map(to_stored, entry.texts), entry.rank, now, checksum)
        connection.execute(f"INSERT INTO new_models VALUES ({', '.join('?' * 13)})", values)
        put_words(connection, key, entry)
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


MIGRATIONS: Final[tuple[Migration, ...]] = (create_tables, create_fingerprints, give_keys)


def version_of(connection: Connection, path: Path) -> int:
    """Return the schema version of a catalogue.

    Raises:
        ZooDamaged: it is an SQLite file of another program.
        ZooTooNew: a later version of Loradex wrote it.
    """
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application != APPLICATION_ID or version < 1:
        raise ZooDamaged(f"{path}: expected a Loradex catalogue, found another file; {RESTORE}")
    if version > len(MIGRATIONS):
        raise ZooTooNew(
            f"{path}: expected schema version {len(MIGRATIONS)} or older, found {version}; update Loradex to open this zoo"
        )
    return int(version)


def expect_current(connection: Connection, path: Path) -> None:
    """Check that a catalogue needs no migration.

    Raises:
        ZooDamaged: it is an SQLite file of another program.
        ZooTooNew: a later version of Loradex wrote it.
        ZooReadOnly: it must be migrated first, which only a writer can do.
    """
    version = version_of(connection, path)
    if version < len(MIGRATIONS):
        raise ZooReadOnly(
            f"{path}: expected schema version {len(MIGRATIONS)}, found {version}; open it for writing once"
        )


def migrate(connection: Connection, version: int = 0) -> None:
    """Apply the migrations after a version, inside the caller's transaction, and record their names."""
    for migration in MIGRATIONS[version:]:
        migration(connection)
        connection.execute("INSERT INTO migrations (name) VALUES (?)", (migration.__name__,))
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
