"""The catalogue's tables, and the migrations that lead to them.

A catalogue names itself by SQLite's ``application_id``, its version by ``user_version``: the number of migrations applied.
To change the tables, append a function to ``MIGRATIONS``; never edit one that was released.
"""

from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from index.errors import RESTORE, ZooDamaged, ZooReadOnly, ZooTooNew

APPLICATION_ID: Final = 0x4C4F5258  # "LORX"
Migration = Callable[[Connection], None]


def create_tables(connection: Connection) -> None:
    """Version 1: the zoo's own row, models, their vectors, and the files that were read."""
    connection.execute("CREATE TABLE migrations (name TEXT PRIMARY KEY, applied TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)")
    connection.execute(  # generation grows with each change of models; vectors is the number of rows that a sound catalogue has
        "CREATE TABLE zoo (space TEXT NOT NULL, dim INTEGER NOT NULL, generation INTEGER NOT NULL, vectors INTEGER NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE models (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, family TEXT NOT NULL, found_by TEXT NOT NULL,"
        " path TEXT, concept TEXT, preview TEXT, facts TEXT NOT NULL, crc INTEGER NOT NULL)"
    )
    connection.execute(  # apart from models, so that filling an engine reads nothing else
        "CREATE TABLE vectors (id TEXT PRIMARY KEY NOT NULL REFERENCES models (id) ON DELETE CASCADE, vector BLOB NOT NULL, crc INTEGER NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE files (path TEXT PRIMARY KEY NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
        " model_id TEXT REFERENCES models (id) ON DELETE CASCADE, refusal TEXT)"
    )
    connection.execute("CREATE INDEX files_by_model ON files (model_id)")


def create_fingerprints(connection: Connection) -> None:
    """Version 2: fingerprints, apart from models, so that comparing them reads nothing else."""
    connection.execute(
        "CREATE TABLE fingerprints (id TEXT PRIMARY KEY NOT NULL REFERENCES models (id) ON DELETE CASCADE, data BLOB NOT NULL, crc INTEGER NOT NULL)"
    )


MIGRATIONS: Final[tuple[Migration, ...]] = (create_tables, create_fingerprints)


def version_of(connection: Connection, path: Path) -> int:
    """The version of a catalogue.

    Raises:
        ZooDamaged: it is an SQLite file of something else.
        ZooTooNew: a later Loradex wrote it.
    """
    application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != APPLICATION_ID or version < 1:
        raise ZooDamaged(f"{path}: expected a Loradex catalogue, found another file; {RESTORE}")
    if version > len(MIGRATIONS):
        raise ZooTooNew(f"{path}: expected schema version {len(MIGRATIONS)} or older, found {version}; update Loradex to open this zoo")
    return int(version)


def expect_current(connection: Connection, path: Path) -> None:
    """Check that a reader can use a catalogue as it is.

    Raises:
        ZooDamaged: it is an SQLite file of something else.
        ZooTooNew: a later Loradex wrote it.
        ZooReadOnly: it must be migrated first, which a reader cannot do.
    """
    version = version_of(connection, path)
    if version < len(MIGRATIONS):
        raise ZooReadOnly(f"{path}: expected schema version {len(MIGRATIONS)}, found {version}; open it for writing once")


def migrate(connection: Connection, version: int = 0) -> None:
    """Apply, inside the caller's transaction, what a catalogue of a version lacks, and record the names."""
    for migration in MIGRATIONS[version:]:
        migration(connection)
        connection.execute("INSERT INTO migrations (name) VALUES (?)", (migration.__name__,))
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
