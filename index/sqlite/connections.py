"""SQLite connections to a catalogue: one writer under a lock, and readers that each thread borrows.

A writer uses WAL, so that readers go on while a batch is committed. On closing it folds the log back and leaves one plain file,
which a reader opens without making a file beside it, as it must for a zoo inside site-packages.

Nothing here opens the catalogue other than through SQLite: closing any other descriptor of the file would drop SQLite's POSIX locks.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection
from threading import Lock
from typing import IO, Any, Final

from loradex.index.errors import RESTORE, BadQuery, DiskRefused, ZooClosed, ZooDamaged, ZooError, ZooLocked, ZooReadOnly
from loradex.index.sqlite.schema import expect_current, migrate, version_of

CATALOGUE: Final = "catalogue.sqlite"
LOCK: Final = "writer.lock"
PATIENCE: Final = 5.0  # seconds that a short lock by another connection is waited for
CACHED: Final = 65_536  # KiB of pages that a reader keeps, as many vectors are read at random
PAGE_SIZE: Final = 8192  # bytes, in which three vectors of 512 numbers have room
NO_ROOM_FOR_LOG: Final = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY_DIRECTORY, sqlite3.SQLITE_READONLY_CANTINIT)


def as_zoo_error(error: sqlite3.Error, path: Path) -> ZooError:
    """The typed error for an error of SQLite at a catalogue."""
    match (
        getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    ):  # the low byte is the kind, the rest the detail
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return ZooLocked(
                f"{path}: expected no other writer, found one; wait for it to end, or open with read_only=True"
            )
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return ZooReadOnly(f"{path}: expected to write, found: {error}; open with read_only=True, or copy it")
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN:
            return DiskRefused(
                f"{path}: expected a disk that works, found: {error}; check free space and access rights"
            )
        case _:
            return ZooDamaged(f"{path}: expected a sound catalogue, found: {error}; {RESTORE}")


def closed_zoo(path: Path) -> ZooClosed:
    """The error for a zoo that is used after ``close``."""
    return ZooClosed(f"{path}: expected an open zoo, found it closed; open it again")


@contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Turn every error of SQLite and of the system, and a value that SQLite does not take, into one of the tree."""
    try:
        yield
    except sqlite3.Error as error:
        raise as_zoo_error(error, path) from None
    except OSError as error:
        raise DiskRefused(
            f"{path}: expected a disk that works, found: {error.strerror or type(error).__name__}; check free space and access rights"
        ) from None
    except (UnicodeEncodeError, OverflowError) as error:
        raise BadQuery(f"{path}: expected text and numbers that SQLite takes, found: {error}; mend the value") from None


def connect(path: Path, options: str, timeout: float = PATIENCE) -> Connection:
    """A connection in autocommit mode that any thread may use, one at a time."""
    uri = f"{path.absolute().as_uri()}?{options}"
    connection = sqlite3.connect(uri, timeout, isolation_level=None, check_same_thread=False, uri=True)
    connection.execute("PRAGMA trusted_schema = OFF")  # a zoo may come from a stranger
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def connect_reader(path: Path) -> Connection:
    """A read-only connection to a catalogue whose version was checked.

    Raises:
        sqlite3.Error: the catalogue cannot be read.
        ZooError: it is not one that this Loradex reads.
    """
    try:
        return connect_checked(path, "mode=ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK:
            roll_back(path)
            return connect_checked(path, "mode=ro")
        if error.sqlite_errorcode not in NO_ROOM_FOR_LOG:
            raise
    # a file in WAL mode, in a folder where SQLite may not make the index of a log: without a log, the file alone is the whole truth
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise ZooReadOnly(
            f"{path}: expected a zoo that was closed, found the log of a killed writer; open it once for writing"
        )
    return connect_checked(path, "mode=ro&immutable=1")


def roll_back(path: Path) -> None:
    """Undo what a writer killed in the middle of its opening or closing left half done, as SQLite does for whoever may write.

    Raises:
        ZooReadOnly: this process may not.
    """
    try:
        with closing(connect(path, "mode=rw")) as connection:
            connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError:
        raise ZooReadOnly(
            f"{path}: expected a zoo that was closed, found the journal of a killed writer; open it once for writing"
        ) from None


def look_of(path: Path) -> tuple[object, ...]:
    """What tells a catalogue from another that was put in its place, which SQLite itself need not notice."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, path.with_name(f"{path.name}-journal").exists()


def connect_checked(path: Path, options: str) -> Connection:
    """A connection, closed again if the catalogue is not one that this Loradex reads."""
    connection = connect(path, options)
    try:
        connection.execute(f"PRAGMA cache_size = -{CACHED}")
        expect_current(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


class Readers:
    """Read-only connections to one catalogue.

    A thread borrows one for the length of a transaction, so searches run side by side, each over one committed state. A connection
    for each thread would outlive the threads that servers start and end; one connection under a lock would make searches queue.
    A connection made to another file than the one that is there now is dropped.
    """

    def __init__(self, path: Path) -> None:
        """Open the first connection.

        Raises:
            ZooError: the catalogue cannot be read.
        """
        self._path, self._lock, self._closed = path, Lock(), False
        with typed_errors(path):
            self._idle = [(look_of(path), connect_reader(path))]

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Borrow a connection; all that is read through it belongs to one committed state.

        Raises:
            ZooError: the zoo was closed, or the catalogue cannot be read.
        """
        with self._lock:
            if self._closed:
                raise closed_zoo(self._path)
            seen, connection = self._idle.pop() if self._idle else ((), None)
        with typed_errors(self._path):
            look = look_of(self._path)
            if connection and look != seen:
                connection.close()
                connection = None
            connection = connection or connect_reader(self._path)
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                self._give_back(look, connection)

    @contextmanager
    def plain(self) -> Iterator[Connection]:
        """A connection of its own, outside of transactions.

        Raises:
            ZooError: the zoo was closed, or the catalogue cannot be read.
        """
        if self._closed:
            raise closed_zoo(self._path)
        with typed_errors(self._path), closing(connect_reader(self._path)) as connection:
            yield connection

    def _give_back(self, look: tuple[object, ...], connection: Connection) -> None:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        with self._lock:
            if self._closed or connection.in_transaction:
                connection.close()
            else:
                self._idle.append((look, connection))

    def close(self) -> None:
        """Close all connections; borrowed ones when they come back."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop()[1].close()


class WriterLock:
    """The right to write in a folder, held by one process at a time and gone with it.

    It is an exclusive SQLite transaction on an empty file: the system's own locks, on every system, and none goes stale after a kill.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock at once or not at all.

        Raises:
            ZooLocked: another writer has it.
            ZooReadOnly: the folder cannot be written.
        """
        path = folder / LOCK
        refusal = f"{folder}: expected the right to write in it, found none; open it with read_only=True, or copy it to a folder of yours"
        try:
            self._connection = connect(path, "mode=rwc", timeout=0)
        except sqlite3.OperationalError:
            raise ZooReadOnly(refusal) from None
        try:
            with typed_errors(path):
                if path.exists() and not os.access(
                    path, os.W_OK
                ):  # SQLite would open it for reading, where nothing is exclusive
                    raise ZooReadOnly(refusal)
                self._connection.execute("PRAGMA journal_mode = OFF")  # nothing is ever written
                self._connection.execute("BEGIN EXCLUSIVE")
        except ZooError:
            self._connection.close()
            raise

    def release(self) -> None:
        """Let the next writer in."""
        self._connection.close()


class Writer:
    """The one connection that changes a catalogue, under the lock of its folder."""

    def __init__(self, folder: Path) -> None:
        """Take the lock, bring the tables up to date, and turn WAL on.

        Raises:
            ZooError: the zoo is locked, read-only, damaged or too new.
        """
        self._path, self._turn, self._closed = folder / CATALOGUE, Lock(), False
        lock = WriterLock(folder)
        try:
            with typed_errors(self._path):
                self._connection = self._connect()
        except BaseException:
            lock.release()
            raise
        self._lock = lock

    def _connect(self) -> Connection:
        connection = connect(self._path, "mode=rw")
        try:
            version_of(connection, self._path)  # before WAL is turned on: a file of something else stays as it is
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            migrate(connection, version_of(connection, self._path))
            connection.execute("COMMIT")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """All or nothing, and on the disk when it ends; threads take turns.

        Raises:
            ZooError: the disk or the catalogue refused it; nothing is changed.
        """
        with self._turn, typed_errors(self._path):
            if self._closed:
                raise closed_zoo(self._path)
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """The connection outside of transactions, for statements that are transactions themselves; threads take turns.

        Raises:
            ZooError: the disk or the catalogue refused it.
        """
        with self._turn, typed_errors(self._path):
            if self._closed:
                raise closed_zoo(self._path)
            yield self._connection

    def close(self) -> None:
        """Fold the log back into one plain file, unless readers still need it, and release the lock."""
        with self._turn:
            self._closed = True
            with suppress(sqlite3.Error):  # readers of other processes are at work: WAL stays, which is as safe
                self._connection.execute("PRAGMA busy_timeout = 0")
                self._connection.execute("PRAGMA journal_mode = DELETE")
            self._connection.close()
            self._lock.release()


def write_empty(folder: Path, space: str, dim: int) -> None:
    """Write a catalogue without models beside its place, then move it there in one step.

    Raises:
        ZooError: the disk refused it.
    """
    path, part = folder / CATALOGUE, folder / f".{CATALOGUE}.part"
    with typed_errors(path):
        part.unlink(missing_ok=True)
        with closing(connect(part, "mode=rwc")) as connection:
            connection.execute("PRAGMA journal_mode = OFF")  # what fails here is thrown away whole
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            connection.execute("BEGIN")
            migrate(connection)
            connection.execute("INSERT INTO zoo (space, dim, generation, vectors) VALUES (?, ?, 0, 0)", (space, dim))
            connection.execute("INSERT INTO commits VALUES (0, randomblob(8))")
            connection.execute("COMMIT")
        part.replace(path)
        sync_folder(folder)


def sync(file: IO[Any]) -> None:
    """Bring all that was written to a file on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
