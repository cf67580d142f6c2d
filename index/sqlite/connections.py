"""Read-only connections to a catalogue.

A writer uses WAL, so that readers go on while it commits. When it closes, it merges the log and leaves one plain file,
which a reader opens without creating a file beside it, as needed for a zoo in site-packages.

The catalogue is opened through SQLite only: closing any other descriptor of the file would release SQLite's POSIX
locks.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection
from threading import Lock
from typing import Final

from loradex.index.disk import typed_errors
from loradex.index.errors import ZooReadOnly, closed_error
from loradex.index.sqlite.schema import expect_current

BUSY_TIMEOUT: Final = 5.0  # seconds to wait for a short lock of another connection
CACHE_SIZE: Final = 65_536  # KiB of pages for each reader, as many vectors are read at random
NO_ROOM_FOR_LOG: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY_DIRECTORY, sqlite3.SQLITE_READONLY_CANTINIT)

FileIdentity = tuple[object, ...]


def connect(path: Path, options: str, timeout: float = BUSY_TIMEOUT) -> Connection:
    """Open a connection in autocommit mode that threads may share, one at a time."""
    uri = f"{path.absolute().as_uri()}?{options}"
    connection = sqlite3.connect(uri, timeout, isolation_level=None, check_same_thread=False, uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")  # a zoo may come from a stranger
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def connect_checked(path: Path, options: str) -> Connection:
    """Open a connection to a catalogue whose version this Loradex reads."""
    connection = connect(path, options)
    try:
        connection.execute(f"PRAGMA cache_size = -{CACHE_SIZE}")
        expect_current(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> Connection:
    """Open a read-only connection to a catalogue.

    Raises:
        sqlite3.Error: the catalogue cannot be read.
        ZooError: its version is not one that this Loradex reads.
    """
    try:
        return connect_checked(path, "mode=ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK:
            roll_back(path)
            return connect_checked(path, "mode=ro")
        if error.sqlite_errorcode not in NO_ROOM_FOR_LOG:
            raise
    # A file in WAL mode, in a folder where SQLite may not create the log's index. Without a log the file is complete.
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise ZooReadOnly(
            f"{path}: expected a zoo that was closed, found the log of a killed writer; open it once for writing"
        )
    return connect_checked(path, "mode=ro&immutable=1")


def roll_back(path: Path) -> None:
    """Have SQLite undo what a writer left half done that was killed while it opened or closed the zoo.

    Raises:
        ZooReadOnly: this process may not write.
    """
    try:
        with closing(connect(path, "mode=rw")) as connection:
            connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        raise ZooReadOnly(
            f"{path}: expected a zoo that was closed, found the journal of a killed writer; open it once for writing"
        ) from None


def file_identity(path: Path) -> FileIdentity:
    """Return what changes when another file is put in a catalogue's place, which SQLite itself may not notice."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, path.with_name(f"{path.name}-journal").exists()


class Readers:
    """A pool of read-only connections to one catalogue.

    A thread borrows a connection for one transaction, so that searches run side by side, each on one committed state.
    One connection for each thread would outlive the threads that servers start and end, and a single one under a lock
    would make searches queue. A connection to a file that was replaced is dropped.
    """

    def __init__(self, path: Path) -> None:
        """Open the first connection.

        Raises:
            ZooError: the catalogue cannot be read.
        """
        self._path, self._lock, self._closed = path, Lock(), False
        with typed_errors(path):
            self._idle = [(file_identity(path), connect_reader(path))]

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Lend a connection; everything read through it belongs to one committed state.

        Raises:
            ZooError: the zoo was closed, or the catalogue cannot be read.
        """
        with self._lock:
            if self._closed:
                raise closed_error(self._path)
            opened_file, connection = self._idle.pop() if self._idle else ((), None)
        with typed_errors(self._path):
            current_file = file_identity(self._path)
            if connection and current_file != opened_file:
                connection.close()
                connection = None
            connection = connection or connect_reader(self._path)
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                self._give_back(current_file, connection)

    @contextmanager
    def new_connection(self) -> Iterator[Connection]:
        """Open a connection outside of the pool and outside of a transaction.

        Raises:
            ZooError: the zoo was closed, or the catalogue cannot be read.
        """
        if self._closed:
            raise closed_error(self._path)
        with typed_errors(self._path), closing(connect_reader(self._path)) as connection:
            yield connection

    def _give_back(self, file: FileIdentity, connection: Connection) -> None:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        with self._lock:
            if self._closed or connection.in_transaction:
                connection.close()
            else:
                self._idle.append((file, connection))

    def close(self) -> None:
        """Close all connections; borrowed ones when they are given back."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop()[1].close()
