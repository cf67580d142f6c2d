"""The catalogue: the SQLite file of a zoo, which holds everything that other files are derived from."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Final

from loradex.index.errors import RESTORE, DiskRefused, ZooDamaged, read_only_error
from loradex.index.sqlite.commits import read_state
from loradex.index.sqlite.connections import Readers
from loradex.index.sqlite.writer import Writer

CATALOGUE: Final = "catalogue.sqlite"


def has_catalogue(folder: Path) -> bool:
    """Whether a folder holds a catalogue.

    Raises:
        DiskRefused: the folder cannot be accessed.
    """
    try:
        return (folder / CATALOGUE).is_file()
    except OSError as error:
        raise DiskRefused(
            f"{folder}: expected a folder that can be read, found: {error.strerror}; check access rights"
        ) from None


class Catalogue:
    """An open catalogue and its transactions.

    Attributes:
        path: of the file.
        space, dim: what the zoo is bound to.
    """

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        """Open the catalogue of a folder.

        Raises:
            ZooError: it cannot be read, or not written.
        """
        self.folder, self.path = folder, folder / CATALOGUE
        with ExitStack() as cleanup:
            self._writer = None if read_only else Writer(self.path)
            if self._writer:
                cleanup.callback(self._writer.close)
            self._readers = Readers(self.path)
            cleanup.callback(self._readers.close)
            self.space, self.dim = self._read_binding()
            self._open_files = cleanup.pop_all()

    def _read_binding(self) -> tuple[str, int]:
        with self.reading() as connection:
            rows = connection.execute("SELECT space, dim FROM zoo").fetchall()
        if len(rows) != 1 or not isinstance(rows[0][0], str) or not isinstance(rows[0][1], int) or rows[0][1] < 1:
            raise ZooDamaged(f"{self.path}: expected the name and dim of one space, found {rows!r}; {RESTORE}")
        return rows[0][0], rows[0][1]

    def close(self) -> None:
        """Close all connections; a second call does nothing."""
        self._open_files.close()

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a transaction that reads one committed state.

        Raises:
            ZooError: the zoo was closed, or the catalogue cannot be read.
        """
        return self._readers.transaction()

    def writing(self) -> AbstractContextManager[Connection]:
        """Open a transaction that leaves the state of the zoo as it is.

        Raises:
            ZooReadOnly: the zoo was opened for reading only.
            ZooError: the disk or the catalogue refused it; nothing is changed.
        """
        return self.require_writer().transaction()

    @contextmanager
    def changing(self) -> Iterator[tuple[Connection, int]]:
        """Open a transaction that commits a new state, and yield it with the number of that state.

        Raises:
            ZooError: as ``writing``.
        """
        with self.writing() as connection:
            generation = read_state(connection).generation + 1
            yield connection, generation
            connection.execute("INSERT INTO commits VALUES (?, randomblob(8))", (generation,))

    def require_writer(self) -> Writer:
        """Return the writer.

        Raises:
            ZooReadOnly: the zoo was opened for reading only.
        """
        if self._writer is None:
            raise read_only_error(self.folder)
        return self._writer

    def copy_to(self, path: Path) -> None:
        """Write a copy of the last committed state.

        Raises:
            ZooError: the disk or the catalogue refused it.
        """
        with self._readers.new_connection() as connection:
            connection.execute("VACUUM INTO ?", (str(path),))

    def vacuum(self) -> None:
        """Give free space back to the disk.

        Raises:
            ZooError: the disk or the catalogue refused it.
        """
        with self.require_writer().exclusive() as connection:
            connection.execute("VACUUM")
