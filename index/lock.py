"""The lock that lets one process at a time write to a zoo."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from loradex.index.disk import typed_errors
from loradex.index.errors import ZooError, ZooReadOnly
from loradex.index.sqlite.connections import connect

LOCK: Final = "writer.lock"


class WriterLock:
    """The right to write in a folder, released when its process ends.

    It is an exclusive SQLite transaction on an empty file: a lock of the operating system, on every system, which a
    killed process cannot leave behind.
    """

    def __init__(self, folder: Path) -> None:
        """Acquire the lock without waiting.

        Raises:
            ZooLocked: another writer has it.
            ZooReadOnly: the folder cannot be written.
        """
        path = folder / LOCK
        refusal = ZooReadOnly(
            f"{folder}: expected the right to write in it, found none; open it with read_only=True, or copy it to a folder of yours"
        )
        try:
            self._connection = connect(path, "mode=rwc", timeout=0)
        except sqlite3.OperationalError:
            raise refusal from None
        try:
            with typed_errors(path):
                # SQLite would open a file without write access for reading, and then no transaction is exclusive
                if path.exists() and not os.access(path, os.W_OK):
                    raise refusal
                self._connection.execute("PRAGMA journal_mode = OFF")  # nothing is ever written
                self._connection.execute("BEGIN EXCLUSIVE")
        except ZooError:
            self._connection.close()
            raise

    def release(self) -> None:
        """Let the next writer in."""
        self._connection.close()
