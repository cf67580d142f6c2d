"""The committed states of a catalogue, and which positions changed between them."""

from pathlib import Path
from sqlite3 import Connection, DatabaseError
from typing import Final

import numpy as np

from loradex.index.model import State
from loradex.index.sqlite.rows import SELECT_POSITIONS, Row, check_position
from loradex.index.sqlite.slots import Slots
from loradex.index.vectors import Vector, scored_rows

PAGE: Final = 4096  # rows read at a time


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


def read_changes(connection: Connection, since: int, dim: int, path: Path) -> tuple[Slots, Slots, Vector]:
    """Return the changes after a generation; all positions are new if it is negative.

    They are the slots (r,) of removed positions, and slots (n,), ascending, and rows (n, dim + 1) of ``scored_rows``
    that were added or replaced.

    Raises:
        ZooDamaged: a position is not as it was written.
    """
    statement = "SELECT DISTINCT slot FROM removed WHERE generation > ? ORDER BY slot"
    removed = np.array([slot for (slot,) in connection.execute(statement, (since,))], np.int64)
    # without the hint SQLite would scan the whole table in order of slot
    condition = "INDEXED BY vectors_by_generation WHERE generation > ?" if since >= 0 else ""
    cursor = connection.execute(f"{SELECT_POSITIONS} {condition} ORDER BY slot", (since,) if condition else ())
    slots, blocks = [], []
    while page := cursor.fetchmany(PAGE):
        slots += [row[0] for row in page]
        blocks.append(rows_to_search(page, dim, path))
    vectors = np.concatenate(blocks) if blocks else np.empty((0, dim + 1), np.float32)
    return removed, np.array(slots, np.int64), vectors


def rows_to_search(rows: list[Row], dim: int, path: Path) -> Vector:
    """Return rows of ``SELECT_POSITIONS`` as ``scored_rows`` (n, dim + 1).

    Raises:
        ZooDamaged: one of them is not as it was written.
    """
    for row in rows:
        check_position(row, 4 * dim, path)
    return scored_rows(unit_vectors(rows, dim), [row[2] for row in rows], [row[3] for row in rows])


def unit_vectors(rows: list[Row], dim: int) -> Vector:
    """Return the unit vectors (n, dim) of rows of ``SELECT_POSITIONS`` that were checked."""
    return np.frombuffer(b"".join(row[1] for row in rows), "<f4").reshape(-1, dim).astype(np.float32, copy=False)
