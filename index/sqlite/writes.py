"""Changes of the catalogue's rows, inside a transaction of the caller."""

import time
from sqlite3 import Connection
from typing import Any

from loradex.index.entry import Entry
from loradex.index.evidence import Positions, evidence_of, to_bits
from loradex.index.model import KnownFile
from loradex.index.sqlite.derived_words import delete_words, put_words
from loradex.index.sqlite.rows import (
    MODEL_COLUMNS,
    bytes_checksum,
    facts_of_file,
    key_of,
    position_checksum,
    row_checksum,
    to_stored,
)
from loradex.index.sqlite.slots import PER_MODEL, slot_of
from loradex.index.vectors import to_bytes

StoredPositions = dict[int, list[Any]]  # vector, scale and bias by slot


def put_model(connection: Connection, entry: Entry, positions: Positions, generation: int) -> int | None:
    """Insert or replace a model and its positions; a model that is replaced keeps the time when it was added.

    Returns:
        the key of a model that was replaced: its words and tags may have changed (``refresh_words``).
    """
    stored = connection.execute("SELECT key, added FROM models WHERE id = ?", (entry.id,)).fetchone()
    added = stored[1] if stored else entry.added if entry.added is not None else int(time.time())
    evidence = to_bits(evidence_of(positions))
    checksum = row_checksum((*entry.fields, entry.rank, added, evidence))
    values = (*map(to_stored, entry.fields), entry.rank, added, evidence, checksum)
    columns, placeholders = ", ".join(MODEL_COLUMNS), ", ".join("?" * len(MODEL_COLUMNS))
    if stored:
        key = int(stored[0])
        connection.execute(f"UPDATE models SET ({columns}) = ({placeholders}) WHERE key = ?", (*values, key))
    else:
        inserted = connection.execute(f"INSERT INTO models ({columns}) VALUES ({placeholders})", values)
        key = int(inserted.lastrowid or 0)
        put_words(connection, key, entry)
    put_positions(connection, key, positions, generation, stored_positions(connection, key) if stored else {})
    return key if stored else None


def delete_model(connection: Connection, id: str, generation: int) -> bool:
    """Delete a model with everything that belongs to it; return whether there was one."""
    key = key_of(connection, id)
    if key is None:
        return False
    put_positions(connection, key, {}, generation, stored_positions(connection, key))
    delete_words(connection, key)
    connection.execute("DELETE FROM models WHERE key = ?", (key,))
    return True


def stored_positions(connection: Connection, key: int) -> StoredPositions:
    """Return the positions of a model as they are stored."""
    select = "SELECT slot, vector, scale, bias FROM vectors WHERE slot BETWEEN ? AND ?"
    rows = connection.execute(select, (PER_MODEL * key, PER_MODEL * key + PER_MODEL - 1)).fetchall()
    return {slot: values for slot, *values in rows}


def put_positions(
    connection: Connection, key: int, positions: Positions, generation: int, stored: StoredPositions
) -> None:
    """Insert, replace or delete the positions of a model, leaving those that are stored already."""
    given = {slot_of(key, kind): position for kind, position in positions.items()}
    for slot in stored.keys() - given.keys():
        delete_position(connection, slot, generation)
    for slot, position in given.items():
        # SQLite has no negative zero
        vector, scale, bias = to_bytes(position.vector), position.scale, position.bias + 0.0
        if stored.get(slot) != [vector, scale, bias]:
            row = (slot, key, vector, scale, bias, position_checksum(slot, vector, scale, bias), generation)
            connection.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    if added := len(given.keys() - stored.keys()):
        connection.execute("UPDATE zoo SET vectors = vectors + ?", (added,))


def delete_position(connection: Connection, slot: int, generation: int) -> None:
    """Delete the position in a slot, and list it as removed for processes that have it in memory."""
    connection.execute("DELETE FROM vectors WHERE slot = ?", (slot,))
    connection.execute("INSERT INTO removed VALUES (?, ?)", (slot, generation))
    connection.execute("UPDATE zoo SET vectors = vectors - 1")


def put_fingerprint(connection: Connection, key: int, data: bytes) -> None:
    """Insert or replace the fingerprint of a model."""
    connection.execute("INSERT OR REPLACE INTO fingerprints VALUES (?, ?, ?)", (key, data, bytes_checksum(key, data)))


def put_file(connection: Connection, file: KnownFile, key: int | None) -> None:
    """Insert or replace a file and the key of its model.

    Raises:
        BadModel: its facts are not JSON.
    """
    texts = (to_stored(file.refusal), file.reader, to_stored(file.name), facts_of_file(file))
    values = (to_stored(file.path), file.size, file.mtime_ns, key, *texts)
    connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def delete_file(connection: Connection, path: str) -> None:
    """Delete a file, if it is known."""
    connection.execute("DELETE FROM files WHERE path = ?", (to_stored(path),))
