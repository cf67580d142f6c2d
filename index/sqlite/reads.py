"""Queries of the catalogue."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loradex.index.model import KnownFile, Model
from loradex.index.sqlite.conditions import Condition
from loradex.index.sqlite.rows import (
    SELECT_MODELS,
    Row,
    StoredText,
    checked_bytes,
    damaged_row_error,
    from_stored,
    model_of_row,
    select_in,
)
from loradex.index.vectors import Vector, from_bytes

LARGEST_LIMIT: Final = 2**62  # of SQLite's LIMIT, less than its largest integer


def read_models(connection: Connection, path: Path, ids: Sequence[str]) -> dict[str, Model]:
    """Return the models of those ids that exist, by id.

    Raises:
        ZooDamaged: a row is not as it was written.
    """
    rows = select_in(connection, f"{SELECT_MODELS} WHERE id IN", ids)
    return {str(row[0]): model_of_row(row, path) for row in rows}


def read_models_by_key(connection: Connection, path: Path, keys: Sequence[int]) -> dict[int, Model]:
    """Return the models of some keys.

    Raises:
        ZooDamaged: a row is missing, or is not as it was written.
    """
    rows = select_in(connection, f"{SELECT_MODELS} WHERE key IN", keys)
    models = {row[-1]: model_of_row(row, path) for row in rows}
    for key in keys:
        if key not in models:
            raise damaged_row_error(path, key)
    return models


def read_page(connection: Connection, where: Condition, after: StoredText, limit: int) -> list[Row]:
    """Return the first rows of ``models`` that meet a condition and have a greater id, in order of id."""
    condition, values = where
    statement = f"{SELECT_MODELS} WHERE {condition} AND id > ? ORDER BY id LIMIT {limit}"
    return connection.execute(statement, (*values, after)).fetchall()


def read_matching_keys(connection: Connection, where: Condition) -> NDArray[np.int64]:
    """Return the keys (n,) of the models that meet a condition, ascending."""
    condition, values = where
    rows = connection.execute(f"SELECT key FROM models WHERE {condition} ORDER BY key", values).fetchall()
    return np.fromiter((key for (key,) in rows), np.int64, len(rows))


def count_models(connection: Connection, column: str) -> dict[str, int]:
    """Return the counts of a column, as ``BaseZoo.counts``."""
    table = {"family": "models", "format": "models", "found_by": "models", "tag": "tags"}[column]
    statement = f"SELECT {column}, count(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    return {str(value): count for value, count in connection.execute(statement).fetchall()}


def search_words(connection: Connection, path: Path, query: str, k: int, where: Condition) -> list[Model]:
    """Return the ``k`` best models for a query of ``match_query``, by BM25; names and tags weigh more than notes.

    Raises:
        ZooDamaged: a row is not as it was written.
    """
    condition, values = where
    statement = (
        f"{SELECT_MODELS} JOIN words ON words.rowid = models.key WHERE words MATCH ? AND {condition}"
        " ORDER BY bm25(words, 10, 5, 1), models.id LIMIT ?"
    )
    rows = connection.execute(statement, (query, *values, min(k, LARGEST_LIMIT)))
    return [model_of_row(row, path) for row in rows]


def read_vectors_by_id(connection: Connection, path: Path, dim: int, ids: Sequence[str]) -> dict[str, Vector]:
    """Return the vectors (dim,) of those models that have one, by id.

    Raises:
        ZooDamaged: a vector is not as it was written.
    """
    ids_by_key: dict[int, str] = dict(select_in(connection, "SELECT key, id FROM models WHERE id IN", ids))
    rows = select_in(connection, "SELECT key, vector, crc FROM vectors WHERE key IN", list(ids_by_key))
    return {ids_by_key[row[0]]: from_bytes(checked_bytes(row, 4 * dim, path)) for row in rows}


def read_matrix(connection: Connection, path: Path, dim: int, keys: NDArray[np.int64]) -> Vector:
    """Return the vectors (n, dim) of models, in the order of their keys (n,).

    Raises:
        ZooDamaged: a vector is missing, or is not as it was written.
    """
    rows = select_in(connection, "SELECT key, vector, crc FROM vectors WHERE key IN", keys.tolist())
    order, stored_keys = np.argsort(keys, kind="stable"), np.array([row[0] for row in rows], np.int64)
    if not np.array_equal(keys[order], np.sort(stored_keys)):
        raise damaged_row_error(path, next(iter(set(keys.tolist()) - set(stored_keys.tolist())), None))
    blocks = [checked_bytes(row, 4 * dim, path) for row in rows]
    stored = np.frombuffer(b"".join(blocks), "<f4").reshape(-1, dim)
    matrix = np.empty((len(keys), dim), np.float32)
    matrix[order] = stored[np.argsort(stored_keys, kind="stable")]
    return matrix


def read_fingerprints(
    connection: Connection, path: Path, ids: Sequence[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Yield the ids and fingerprints of all models that have one, in order of id, or of some models.

    Raises:
        ZooDamaged: a fingerprint is not as it was written.
    """
    statement = "SELECT id, key, data, fingerprints.crc FROM fingerprints JOIN models USING (key)"
    rows = (
        connection.execute(f"{statement} ORDER BY id")
        if ids is None
        else select_in(connection, f"{statement} WHERE id IN", ids)
    )
    for id, *row in rows:
        yield id, checked_bytes(tuple(row), None, path)


def read_files(connection: Connection, ids: Sequence[str] | None = None) -> Iterator[KnownFile]:
    """Yield all files that were indexed, in order of path, or those of some models."""
    statement = "SELECT files.path, size, mtime_ns, id, refusal, reader FROM files LEFT JOIN models USING (key)"
    rows = (
        connection.execute(f"{statement} ORDER BY files.path")
        if ids is None
        else select_in(connection, f"{statement} WHERE id IN", ids)
    )
    for path, size, mtime_ns, id, refusal, reader in rows:
        yield KnownFile(str(from_stored(path)), size, mtime_ns, id, from_stored(refusal), reader)
