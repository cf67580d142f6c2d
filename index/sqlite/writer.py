"""The one connection that changes a catalogue."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection
from threading import Lock
from typing import Final

from loradex.index.disk import sync_folder, typed_errors
from loradex.index.errors import closed_error
from loradex.index.lock import WriterLock
from loradex.index.sqlite.connections import connect
from loradex.index.sqlite.schema import migrate, version_of

PAGE_SIZE: Final = 8192  # bytes: room for three positions of 512 numbers


class Writer:
    """A read-write connection to a catalogue, held under the lock of its folder."""

    def __init__(self, path: Path) -> None:
        """Acquire the lock, migrate the tables, and turn WAL on.

        Raises:
            ZooError: the zoo is locked, read-only, damaged or too new.
        """
        self._path, self._turn, self._closed = path, Lock(), False
        lock = WriterLock(path.parent)
        try:
            with typed_errors(path):
                self._connection = self._connect()
        except BaseException:
            lock.release()
            raise
        self._lock = lock

    def _connect(self) -> Connection:
        connection = connect(self._path, "mode=rw")
        try:
            version_of(connection, self._path)  # before WAL is turned on: the file of another program stays as it is
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection, self._path, version_of(connection, self._path))
            connection.execute("COMMIT")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction that is on the disk when it ends, or rolled back after an error; threads take turns.

        Raises:
            ZooError: the disk or the catalogue refused it; nothing is changed.
        """
        with self.exclusive() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def exclusive(self) -> Iterator[Connection]:
        """Lend the connection to one thread at a time, for statements that are transactions themselves.

        Raises:
            ZooError: the disk or the catalogue refused it.
        """
        with self._turn, typed_errors(self._path):
            if self._closed:
                raise closed_error(self._path)
            yield self._connection

    def close(self) -> None:
        """Merge the log into one plain file, unless readers still need it, and release the lock."""
        with self._turn:
            self._closed = True
            with suppress(sqlite3.Error):  # readers of other processes are active: WAL stays, which is as safe
                self._connection.execute("PRAGMA busy_timeout = 0")
                self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.close()
            self._lock.release()


def write_empty_catalogue(path: Path, space: str, dim: int) -> None:
    """Write a catalogue without models to a temporary file, then move it to its path in one step.

    Raises:
        ZooError: the disk refused it.
    """
    part = path.with_name(f".{path.name}.part")
    with typed_errors(path):
        part.unlink(missing_ok=True)
        with closing(connect(part, "mode=rwc")) as connection:
            connection.execute("PRAGMA journal_mode = OFF")  # a file that is not complete is thrown away
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            connection.execute("BEGIN")
            migrate(connection, path)
            connection.execute("INSERT INTO zoo (space, dim, generation, vectors) VALUES (?, ?, 0, 0)", (space, dim))
            connection.execute("INSERT INTO commits VALUES (0, randomblob(8))")
            connection.execute("COMMIT")
        part.replace(path)
        sync_folder(path.parent)
