"""Models, vectors and files as rows of the catalogue, each read back only with the checksum it was written with."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final
from zlib import crc32

from index.errors import RESTORE, BadModel, ZooDamaged
from index.model import FoundBy, KnownFile, Model
from index.vectors import Vector, from_bytes, to_bytes

Text = str | bytes | None
Row = tuple[Any, ...]

MODEL: Final = "SELECT id, name, family, found_by, path, concept, preview, facts, crc FROM models"
PUT_MODEL: Final = (
    "INSERT INTO models VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
    " name = excluded.name, family = excluded.family, found_by = excluded.found_by, path = excluded.path,"
    " concept = excluded.concept, preview = excluded.preview, facts = excluded.facts, crc = excluded.crc"
)


def to_text(text: str | None) -> Text:
    """Text as SQLite takes it; file names and metadata may hold lone surrogates, which go in as bytes."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def from_text(value: Text) -> str | None:
    """The reverse of ``to_text``."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def to_row(model: Model) -> Row:
    """A model as a row of ``models``.

    Raises:
        BadModel: an empty id, a field of another type, or facts that are not JSON.
    """
    texts = (model.id, model.name, model.family, model.found_by, model.path, model.concept, model.preview)
    if not all(isinstance(text, str) for text in texts[:4]) or not all(isinstance(text, str | None) for text in texts[4:]):
        kinds = ", ".join(type(text).__name__ for text in texts)
        raise BadModel(f"model {model.id!r}: expected text in every field, found {kinds}; convert them to str")
    if not model.id or not isinstance(to_text(model.id), str) or not isinstance(model.facts, dict):
        kind = type(model.facts).__name__
        raise BadModel(f"model {model.id!r}: expected an id of valid text and a dict of facts, found facts as {kind}; mend the model")
    try:
        facts = json.dumps(model.facts, allow_nan=False)
        fields = (*texts[:3], FoundBy(model.found_by).value, *texts[4:], facts)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadModel(f"model {model.id!r}: expected JSON facts, found_by weights or metadata, found: {error}; mend the model") from None
    return (*map(to_text, fields), checksum(fields))


def from_row(row: Row, path: Path) -> Model:
    """A row of ``models`` as a model.

    Raises:
        ZooDamaged: the row is not the one that was written.
    """
    try:
        fields = tuple(map(from_text, row[:-1]))
        if checksum(fields) == row[-1]:
            id, name, family, found_by, where, concept, preview, facts = fields
            return Model(id, name, family, FoundBy(found_by), where, concept, preview, json.loads(facts or ""))  # type: ignore[arg-type]
    except (ValueError, TypeError):
        pass
    raise damaged_row(path, row[0])


def checksum(fields: Iterable[str | None]) -> int:
    """The CRC-32 of the text of a row."""
    return crc32(json.dumps(list(fields)).encode())


def damaged_row(path: Path, id: object) -> ZooDamaged:
    """The error for a row that fails its checksum."""
    return ZooDamaged(f"{path}: expected the row of model {id!r} as it was written, found another; {RESTORE}")


def put(connection: Connection, row: Row, vector: Vector | None) -> None:
    """Insert or replace a model and its vector."""
    connection.execute(PUT_MODEL, row)
    if vector is None:
        connection.execute("DELETE FROM vectors WHERE id = ?", row[:1])
    else:
        blob = to_bytes(vector)
        connection.execute("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", (row[0], blob, crc32(blob, crc32(row[0].encode()))))


def note_change(connection: Connection) -> None:
    """Tell all searchers that models changed."""
    connection.execute("UPDATE zoo SET generation = generation + 1, vectors = (SELECT count(*) FROM vectors)")


def generation(connection: Connection) -> int:
    """The number of the state that a transaction sees."""
    return int(connection.execute("SELECT generation FROM zoo").fetchone()[0])


def read_vectors(connection: Connection, dim: int, path: Path) -> Iterator[tuple[str, Vector]]:
    """Ids and vectors (dim,) of all models that have one, in order of id.

    Raises:
        ZooDamaged: a vector is not the one that was written, or some are lost.
    """
    rows = sorted(connection.execute("SELECT id, vector, crc FROM vectors"), key=lambda row: str(row[0]))
    expected = connection.execute("SELECT vectors FROM zoo").fetchone()[0]
    if len(rows) != expected:
        raise ZooDamaged(f"{path}: expected {expected} vectors, found {len(rows)}; {RESTORE}")
    for row in rows:
        yield row[0], read_vector(row, dim, path)


def read_vector(row: Row, dim: int, path: Path) -> Vector:
    """The vector (dim,) of a row (id, vector, crc).

    Raises:
        ZooDamaged: it is not the one that was written.
    """
    id, blob, crc = row
    if not isinstance(id, str) or not isinstance(blob, bytes) or len(blob) != 4 * dim or crc32(blob, crc32(id.encode())) != crc:
        raise damaged_row(path, id)
    return from_bytes(blob)


def put_fingerprint(connection: Connection, id: str, data: bytes) -> None:
    """Insert or replace the fingerprint of a model."""
    connection.execute("INSERT OR REPLACE INTO fingerprints VALUES (?, ?, ?)", (id, data, crc32(data, crc32(id.encode()))))


def read_fingerprints(connection: Connection, path: Path) -> Iterator[tuple[str, bytes]]:
    """Ids and fingerprints of all models that have one, in order of id.

    Raises:
        ZooDamaged: a fingerprint is not the one that was written.
    """
    for id, data, crc in connection.execute("SELECT id, data, crc FROM fingerprints ORDER BY id"):
        if not isinstance(id, str) or not isinstance(data, bytes) or crc32(data, crc32(id.encode())) != crc:
            raise damaged_row(path, id)
        yield id, data


def put_file(connection: Connection, file: KnownFile) -> None:
    """Insert or replace what is known of a file."""
    path, size, mtime_ns, model_id, refusal = astuple(file)
    connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", (to_text(path), size, mtime_ns, model_id, to_text(refusal)))


def read_files(connection: Connection) -> Iterator[KnownFile]:
    """All files that were read, in order of path."""
    rows = connection.execute("SELECT path, size, mtime_ns, model_id, refusal FROM files ORDER BY path")
    for path, size, mtime_ns, model_id, refusal in rows:
        yield KnownFile(str(from_text(path)), size, mtime_ns, model_id, from_text(refusal))
