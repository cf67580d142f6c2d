"""Queries of the catalogue."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Final

import numpy as np

from loradex.index.evidence import CODES, PLACED, Evidence, Position, Positions
from loradex.index.model import KnownFile, Model
from loradex.index.sqlite.conditions import Condition
from loradex.index.sqlite.rows import (
    SELECT_FILES,
    SELECT_MODELS,
    SELECT_POSITIONS,
    Row,
    StoredText,
    checked_bytes,
    damaged_row_error,
    file_of_row,
    model_of_row,
    position_of_row,
    select_in,
)
from loradex.index.sqlite.slots import PER_MODEL, Keys, Slots, kind_of, slots_of

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


def read_matching_keys(connection: Connection, where: Condition) -> Keys:
    """Return the keys (n,) of the models that meet a condition, ascending."""
    condition, values = where
    rows = connection.execute(f"SELECT key FROM models WHERE {condition} ORDER BY key", values).fetchall()
    return np.fromiter((key for (key,) in rows), np.int64, len(rows))


def count_models(connection: Connection, column: str) -> dict[str, int]:
    """Return the counts of a column, as ``BaseZoo.counts``."""
    if column == "found_by":
        return count_evidence(connection)
    table = {"family": "models", "format": "models", "tag": "tags"}[column]
    statement = f"SELECT {column}, count(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
    return {str(value): count for value, count in connection.execute(statement).fetchall()}


def count_evidence(connection: Connection) -> dict[str, int]:
    """Return how many models are known by each kind of evidence, as ``BaseZoo.counts``."""
    counts: Counter[str] = Counter()
    for bits, count in connection.execute("SELECT evidence, count(*) FROM models GROUP BY 1"):
        for kind in counted_kinds(bits):
            counts[kind.value] += count
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def counted_kinds(bits: int) -> tuple[Evidence, ...]:
    """Return the kinds of evidence of ``to_bits``, or metadata; bits that stand for no kind are left out."""
    return tuple(kind for kind, code in CODES.items() if bits >> code & 1) or (Evidence.METADATA,)


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


def read_positions_by_id(connection: Connection, path: Path, dim: int, ids: Sequence[str]) -> dict[str, Positions]:
    """Return the positions of those models that have one, by id, the weightiest evidence first.

    Raises:
        ZooDamaged: a position is not as it was written.
    """
    ids_by_key: dict[int, str] = dict(select_in(connection, "SELECT key, id FROM models WHERE id IN", ids))
    slots = slots_of(np.array(list(ids_by_key), np.int64), PLACED)
    rows = select_in(connection, f"{SELECT_POSITIONS} WHERE slot IN", slots.tolist())
    positions: dict[str, dict[Evidence, Position]] = {}
    for row in sorted(rows):
        key, position = row[0] // PER_MODEL, position_of_row(row, 4 * dim, path)
        positions.setdefault(ids_by_key[key], {})[kind_of(row[0])] = position
    return {
        id: {kind: positions[id][kind] for kind in PLACED if kind in positions[id]} for id in ids if id in positions
    }


def read_slots(connection: Connection, path: Path, slots: Slots) -> list[Row]:
    """Return the rows of ``SELECT_POSITIONS`` in some slots (n,), in their order.

    Raises:
        ZooDamaged: a position is missing.
    """
    rows = select_in(connection, f"{SELECT_POSITIONS} WHERE slot IN", slots.tolist())
    by_slot = {row[0]: row for row in rows}
    for slot in slots.tolist():
        if slot not in by_slot:
            raise damaged_row_error(path, slot // PER_MODEL)
    return [by_slot[slot] for slot in slots.tolist()]


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
        yield id, checked_bytes(tuple(row), path)


def read_files(connection: Connection, path: Path) -> Iterator[KnownFile]:
    """Yield all files that were indexed, in order of path.

    Raises:
        ZooDamaged: a row is not as it was written.
    """
    for row in connection.execute(f"{SELECT_FILES} ORDER BY files.path"):
        yield file_of_row(row, path)
