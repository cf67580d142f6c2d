"""The format of the catalogue's rows: text, checksums, and models read back only if their checksum is right."""

import json
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from sqlite3 import Connection
from struct import Struct
from struct import error as StructError
from typing import Any, Final
from zlib import crc32

from loradex.index.entry import is_valid_unicode
from loradex.index.errors import RESTORE, BadModel, ZooDamaged
from loradex.index.evidence import Position, from_bits
from loradex.index.model import KnownFile, Model
from loradex.index.sqlite.slots import PER_MODEL
from loradex.index.vectors import from_bytes

Row = tuple[Any, ...]
StoredText = str | bytes | None

KEYS_PER_STATEMENT: Final = 500
MODEL_COLUMNS: Final = "id name family path concept preview facts format rank added evidence crc".split()  # noqa: SIM905
SELECT_MODELS: Final = f"SELECT {', '.join(f'models.{column}' for column in (*MODEL_COLUMNS, 'key'))} FROM models"
SELECT_POSITIONS: Final = "SELECT slot, vector, scale, bias, crc FROM vectors"
SELECT_FILES: Final = (
    "SELECT files.path, size, mtime_ns, models.id, refusal, reader, files.name, files.facts"
    " FROM files LEFT JOIN models USING (key)"
)
NUMBERS: Final = Struct("<qdd")  # slot, scale and bias

kinds_of_bits = lru_cache(maxsize=64)(from_bits)


def to_stored(text: str | None) -> StoredText:
    """Return a text as it is stored; one with lone surrogates, as in file names and metadata, is stored as bytes."""
    return text if text is None or is_valid_unicode(text) else text.encode("utf-8", "surrogatepass")


def from_stored(value: StoredText) -> str | None:
    """Return the text of ``to_stored``."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def checked_fields(row: Row, path: Path) -> tuple[Any, ...]:
    """Return the texts of a row of ``SELECT_MODELS``, from id to format.

    Raises:
        ZooDamaged: the row is not as it was written.
    """
    *texts, rank, added, evidence, crc, _ = row
    try:
        fields = tuple(map(from_stored, texts))
        if row_checksum((*fields, rank, added, evidence)) == crc:
            return fields
    except (ValueError, TypeError):
        pass
    raise damaged_row_error(path, row[0])


def model_of_row(row: Row, path: Path) -> Model:
    """Return the model of a row of ``SELECT_MODELS``.

    Raises:
        ZooDamaged: the row is not as it was written.
    """
    id, name, family, file, concept, preview, facts, _ = checked_fields(row, path)
    try:
        evidence = kinds_of_bits(row[10])
        return Model(id, name, family, file, concept, preview, json.loads(facts or ""), row[9], evidence)
    except (ValueError, TypeError):
        raise damaged_row_error(path, id) from None


def file_of_row(row: Row, path: Path) -> KnownFile:
    """Return the file of a row of ``SELECT_FILES``.

    Raises:
        ZooDamaged: its path, name or facts are not as they were written.
    """
    file, size, mtime_ns, id, refusal, reader, name, facts = row
    try:
        values = {} if facts is None else json.loads(facts)
        if isinstance(values, dict):
            return KnownFile(
                str(from_stored(file)), size, mtime_ns, id, from_stored(refusal), reader, from_stored(name), values
            )
    except (ValueError, TypeError, RecursionError):
        pass
    raise ZooDamaged(f"{path}: expected the row of file {file!r} as it was written, found another; {RESTORE}")


def facts_of_file(file: KnownFile) -> str | None:
    """Return the facts of a file as JSON, or None if there are none.

    Raises:
        BadModel: they are not JSON.
    """
    try:
        return json.dumps(file.facts, allow_nan=False) if file.facts else None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadModel(f"file {file.path!r}: expected JSON facts, found: {error}; correct the file's facts") from None


def row_checksum(fields: Iterable[str | int | None]) -> int:
    """Return the CRC-32 of the fields of a row."""
    return crc32(json.dumps(list(fields)).encode())


def bytes_checksum(key: int, data: bytes) -> int:
    """Return the CRC-32 of the bytes that belong to a key."""
    return crc32(data, key & 0xFFFFFFFF)


def checked_bytes(row: Row, path: Path) -> bytes:
    """Return the bytes of a row (key, bytes, crc).

    Raises:
        ZooDamaged: they are not as they were written.
    """
    key, data, crc = row
    if type(data) is not bytes or type(key) is not int or bytes_checksum(key, data) != crc:
        raise damaged_row_error(path, key)
    return data


def position_checksum(slot: int, vector: bytes, scale: float, bias: float) -> int:
    """Return the CRC-32 of a position in a slot."""
    return crc32(vector, crc32(NUMBERS.pack(slot, scale, bias)))


def check_position(row: Row, length: int, path: Path) -> None:
    """Check a row of ``SELECT_POSITIONS``.

    Raises:
        ZooDamaged: it is not as it was written, or its vector is not of so many bytes.
    """
    slot, vector, scale, bias, crc = row
    try:
        if len(vector) == length and position_checksum(slot, vector, scale, bias) == crc:
            return
    except (TypeError, StructError):
        pass
    raise damaged_row_error(path, slot // PER_MODEL if isinstance(slot, int) else slot)


def position_of_row(row: Row, length: int, path: Path) -> Position:
    """Return the position of a row of ``SELECT_POSITIONS``.

    Raises:
        ZooDamaged: as ``check_position``.
    """
    check_position(row, length, path)
    _, vector, scale, bias, _ = row
    return Position(from_bytes(vector), scale, bias)


def is_damaged(check: Callable[..., object], *arguments: object) -> bool:
    """Whether one of the checks of rows finds that a row is not as it was written."""
    try:
        check(*arguments)
    except ZooDamaged:
        return True
    return False


def damaged_row_error(path: Path, id: object) -> ZooDamaged:
    """The error of a row whose checksum is wrong."""
    return ZooDamaged(f"{path}: expected the row of model {id!r} as it was written, found another; {RESTORE}")


def select_in(connection: Connection, statement: str, keys: Sequence[int | StoredText]) -> list[Row]:
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
