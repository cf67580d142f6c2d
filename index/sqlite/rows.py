"""The format of the catalogue's rows: text, checksums, and models read back only if their checksum is right."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final
from zlib import crc32

from loradex.index.entry import is_valid_unicode
from loradex.index.errors import RESTORE, ZooDamaged
from loradex.index.model import FoundBy, Model

Row = tuple[Any, ...]
StoredText = str | bytes | None

KEYS_PER_STATEMENT: Final = 500
MODEL_COLUMNS: Final = "id name family found_by path concept preview facts format rank added crc".split()  # noqa: SIM905
SELECT_MODELS: Final = f"SELECT {', '.join(f'models.{column}' for column in (*MODEL_COLUMNS, 'key'))} FROM models"


def to_stored(text: str | None) -> StoredText:
    """Return a text as it is stored; one with lone surrogates, as in file names and metadata, is stored as bytes."""
    return text if text is None or is_valid_unicode(text) else text.encode("utf-8", "surrogatepass")


def from_stored(value: StoredText) -> str | None:
    """Return the text of ``to_stored``."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def texts_of_row(row: Row) -> tuple[Any, ...]:
    """Return the texts of a row of ``SELECT_MODELS``, from id to facts.

    Raises:
        UnicodeDecodeError: one of them is damaged.
    """
    return tuple(map(from_stored, row[:8]))


def model_of_row(row: Row, path: Path) -> Model:
    """Return the model of a row of ``SELECT_MODELS``.

    Raises:
        ZooDamaged: the row is not as it was written.
    """
    *fields, rank, added, crc, _ = row
    try:
        texts = tuple(map(from_stored, fields))
        if row_checksum((*texts, rank, added)) == crc:
            id, name, family, found_by, file, concept, preview, facts, _ = texts
            return Model(id, name, family, FoundBy(found_by), file, concept, preview, json.loads(facts or ""), added)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        pass
    raise damaged_row_error(path, row[0])


def row_checksum(fields: Iterable[str | int | None]) -> int:
    """Return the CRC-32 of the fields of a row."""
    return crc32(json.dumps(list(fields)).encode())


def bytes_checksum(key: int, data: bytes) -> int:
    """Return the CRC-32 of the bytes that belong to a key."""
    return crc32(data, key & 0xFFFFFFFF)


def checked_bytes(row: Row, length: int | None, path: Path) -> bytes:
    """Return the bytes of a row (key, bytes, crc).

    Raises:
        ZooDamaged: they are not as they were written, or of another length.
    """
    key, data, crc = row
    if (
        type(data) is not bytes
        or type(key) is not int
        or bytes_checksum(key, data) != crc
        or length not in (None, len(data))
    ):
        raise damaged_row_error(path, key)
    return data


def damaged_row_error(path: Path, id: object) -> ZooDamaged:
    """The error of a row whose checksum is wrong."""
    return ZooDamaged(f"{path}: expected the row of model {id!r} as it was written, found another; {RESTORE}")


def select_in(connection: Connection, statement: str, keys: Sequence[int | str]) -> list[Row]:
    """Return the rows of a statement that ends in ``IN``, for any number of keys."""
    rows: list[Row] = []
    for start in range(0, len(keys), KEYS_PER_STATEMENT):
        part = keys[start : start + KEYS_PER_STATEMENT]
        rows += connection.execute(f"{statement} ({', '.join('?' * len(part))})", part).fetchall()
    return rows


def key_of(connection: Connection, id: str) -> int | None:
    """Return the key of a model, or None if there is no such model."""
    row = connection.execute("SELECT key FROM models WHERE id = ?", (id,)).fetchone()
    return None if row is None else int(row[0])
