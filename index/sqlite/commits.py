"""The committed states of a catalogue, and which vectors changed between them."""

from pathlib import Path
from sqlite3 import Connection, DatabaseError
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loradex.index.model import State
from loradex.index.sqlite.rows import checked_bytes
from loradex.index.vectors import Vector

PAGE: Final = 4096  # rows read at a time

Keys = NDArray[np.int64]


def read_state(connection: Connection) -> State:
    """Return the state that a transaction sees.

    Raises:
        sqlite3.DatabaseError: there is none.
    """
    row = connection.execute("SELECT generation, token FROM commits ORDER BY generation DESC LIMIT 1").fetchone()
    if row is None or type(row[0]) is not int:
        raise DatabaseError(f"{row!r} for the last commit")
    return State(*row)


def is_past_state(connection: Connection, state: State) -> bool:
    """Whether the catalogue went through a state and still has the list of changes since then."""
    statement = "SELECT 1 FROM commits WHERE (generation, token) = (?, ?)"
    return connection.execute(statement, (state.generation, state.token)).fetchone() is not None


def read_changes(connection: Connection, since: int, dim: int, path: Path) -> tuple[Keys, Keys, Vector]:
    """Return the changes after a generation; all vectors are new if it is negative.

    They are the keys (r,) of removed vectors, and keys (n,), ascending, and vectors (n, dim) that were added or
    replaced.

    Raises:
        ZooDamaged: a vector is not as it was written.
    """
    statement = "SELECT DISTINCT key FROM removed WHERE generation > ? ORDER BY key"
    removed = np.array([key for (key,) in connection.execute(statement, (since,))], np.int64)
    # without the hint SQLite would scan the whole table in order of key
    condition = "INDEXED BY vectors_by_generation WHERE generation > ?" if since >= 0 else ""
    rows = connection.execute(
        f"SELECT key, vector, crc FROM vectors {condition} ORDER BY key", (since,) if condition else ()
    )
    keys, blocks = [], []
    while page := rows.fetchmany(PAGE):
        keys += [row[0] for row in page]
        blocks.append(
            np.frombuffer(b"".join(checked_bytes(row, 4 * dim, path) for row in page), "<f4").reshape(-1, dim)
        )
    vectors = np.concatenate(blocks, dtype=np.float32) if blocks else np.empty((0, dim), np.float32)
    return removed, np.array(keys, np.int64), vectors
