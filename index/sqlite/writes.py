"""Changes of the catalogue's rows, inside a transaction of the caller."""

import time
from sqlite3 import Connection

from loradex.index.entry import Entry
from loradex.index.model import KnownFile
from loradex.index.sqlite.rows import MODEL_COLUMNS, bytes_checksum, key_of, row_checksum, to_stored
from loradex.index.vectors import Vector, to_bytes


def put_model(connection: Connection, entry: Entry, vector: Vector | None, generation: int) -> None:
    """Insert or replace a model and its vector; a model that is replaced keeps the time when it was added."""
    stored = connection.execute("SELECT key, added FROM models WHERE id = ?", (entry.id,)).fetchone()
    added = stored[1] if stored else entry.added if entry.added is not None else int(time.time())
    checksum = row_checksum((*entry.texts, entry.rank, added))
    values = (*map(to_stored, entry.texts), entry.rank, added, checksum)
    columns, placeholders = ", ".join(MODEL_COLUMNS), ", ".join("?" * len(MODEL_COLUMNS))
    if stored:
        key = int(stored[0])
        connection.execute(f"UPDATE models SET ({columns}) = ({placeholders}) WHERE key = ?", (*values, key))
        delete_words(connection, key)
    else:
        inserted = connection.execute(f"INSERT INTO models ({columns}) VALUES ({placeholders})", values)
        key = int(inserted.lastrowid or 0)
    put_words(connection, key, entry)
    put_vector(connection, key, vector, generation)


def delete_model(connection: Connection, id: str, generation: int) -> bool:
    """Delete a model with everything that belongs to it; return whether there was one."""
    key = key_of(connection, id)
    if key is None:
        return False
    delete_vector(connection, key, generation)
    delete_words(connection, key)
    connection.execute("DELETE FROM models WHERE key = ?", (key,))
    return True


def put_words(connection: Connection, key: int, entry: Entry) -> None:
    """Insert the tags of a model, and its words for full-text search."""
    connection.executemany("INSERT INTO tags VALUES (?, ?)", [(tag, key) for tag in entry.tags])
    connection.execute("INSERT INTO words (rowid, name, tags, notes) VALUES (?, ?, ?, ?)", (key, *entry.words))


def delete_words(connection: Connection, key: int) -> None:
    """Delete the tags and words of a model."""
    connection.execute("DELETE FROM tags WHERE key = ?", (key,))
    connection.execute("DELETE FROM words WHERE rowid = ?", (key,))


def put_vector(connection: Connection, key: int, vector: Vector | None, generation: int) -> None:
    """Insert, replace or delete the vector of a model, unless it is stored already."""
    stored = connection.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
    data = None if vector is None else to_bytes(vector)
    if (stored[0] if stored else None) == data:
        return
    if data is None:
        delete_vector(connection, key, generation)
        return
    row = (key, data, bytes_checksum(key, data), generation)
    connection.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", row)
    if not stored:
        connection.execute("UPDATE zoo SET vectors = vectors + 1")


def delete_vector(connection: Connection, key: int, generation: int) -> None:
    """Delete a vector, if there is one, and list it as removed for processes that have it in memory."""
    if connection.execute("DELETE FROM vectors WHERE key = ?", (key,)).rowcount:
        connection.execute("INSERT INTO removed VALUES (?, ?)", (key, generation))
        connection.execute("UPDATE zoo SET vectors = vectors - 1")


def put_fingerprint(connection: Connection, key: int, data: bytes) -> None:
    """Insert or replace the fingerprint of a model."""
    connection.execute("INSERT OR REPLACE INTO fingerprints VALUES (?, ?, ?)", (key, data, bytes_checksum(key, data)))


def put_file(connection: Connection, file: KnownFile, key: int | None) -> None:
    """Insert or replace a file and the key of its model."""
    values = (to_stored(file.path), file.size, file.mtime_ns, key, to_stored(file.refusal), file.reader)
    connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", values)


def delete_file(connection: Connection, path: str) -> None:
    """Delete a file, if it is known."""
    connection.execute("DELETE FROM files WHERE path = ?", (to_stored(path),))
