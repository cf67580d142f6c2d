"""The schema version of a catalogue.

SQLite's ``application_id`` marks a file as a catalogue of Loradex, and ``user_version`` is the number of migrations
applied.
"""

from pathlib import Path
from sqlite3 import Connection
from typing import Final

from loradex.index.errors import RESTORE, ZooDamaged, ZooTooNew, outdated_error
from loradex.index.sqlite.derived_words import rewrite_words
from loradex.index.sqlite.migrations import MIGRATIONS

APPLICATION_ID: Final = 0x4C4F5258  # "LORX"


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
        ZooOutdated: it must be migrated first, which only a writer can do.
    """
    version = version_of(connection, path)
    if version < len(MIGRATIONS):
        raise outdated_error(path, path.parent, f"schema version {len(MIGRATIONS)}", version)


def migrate(connection: Connection, path: Path, version: int = 0) -> None:
    """Apply the migrations after a version, inside the caller's transaction, and record their names.

    Raises:
        ZooDamaged: a row is not as it was written, where that version cannot say so.
    """
    for migration in MIGRATIONS[version:]:
        migration(connection)
        connection.execute("INSERT INTO migrations (name) VALUES (?)", (migration.__name__,))
    if 0 < version < len(MIGRATIONS):
        rewrite_words(connection, path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
