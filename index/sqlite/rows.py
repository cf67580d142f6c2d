"""Models, vectors and files as rows of the catalogue, each read back only with the checksum it was written with."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from loradex.index.errors import RESTORE, BadModel, ZooDamaged
from loradex.index.model import FoundBy, KnownFile, Model
from loradex.index.vectors import Vector, from_bytes, to_bytes

Text = str | bytes | None
Row = tuple[Any, ...]

AT_ONCE: Final = 500  # keys a statement
COLUMNS: Final = "id name family found_by path concept preview facts format rank added crc".split()  # noqa: SIM905
MODEL: Final = f"SELECT {', '.join(f'models.{column}' for column in (*COLUMNS, 'key'))} FROM models"
WORD: Final = re.compile(r"[\w\u0300-\u036f]+")  # with marks that belong to the letter before
CAMEL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])|_")


@dataclass(frozen=True, slots=True)
class Entry:
    """A model as ``models`` holds it, but for its key."""

    texts: tuple[str | None, ...]  # id, name, family, found_by, path, concept, preview, facts, format
    rank: int | None
    tags: frozenset[str]
    words: tuple[str, str, str]  # of the name; of tags and trigger words; of notes
    added: int | None = None


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


def to_entry(model: Model) -> Entry:
    """A model as the catalogue takes it.

    Raises:
        BadModel: an empty id, a field of another type, or facts that are not JSON.
    """
    texts = (model.id, model.name, model.family, model.found_by, model.path, model.concept, model.preview)
    if not all(isinstance(text, str) for text in texts[:4]) or not all(
        isinstance(text, str | None) for text in texts[4:]
    ):
        kinds = ", ".join(type(text).__name__ for text in texts)
        raise BadModel(f"model {model.id!r}: expected text in every field, found {kinds}; convert them to str")
    if not model.id or not isinstance(to_text(model.id), str) or not isinstance(model.facts, dict):
        kind = type(model.facts).__name__
        raise BadModel(
            f"model {model.id!r}: expected an id of valid text and a dict of facts, found facts as {kind}; mend the model"
        )
    try:
        facts = json.dumps(model.facts, allow_nan=False)
        return replace(
            entry_of((*texts[:3], FoundBy(model.found_by).value, *texts[4:], facts)), added=to_time(model.added)
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise BadModel(
            f"model {model.id!r}: expected JSON facts, found_by weights or metadata, found: {error}; mend the model"
        ) from None


def to_time(added: int | None) -> int | None:
    """Seconds since 1970 as the catalogue takes them.

    Raises:
        ValueError: they are no whole number, or too many.
    """
    if added is not None and (type(added) is not int or not 0 <= added < 2**62):
        raise ValueError(f"added {added!r}")
    return added


def entry_of(texts: tuple[str | None, ...]) -> Entry:
    """What is filtered and searched by, out of a model's eight texts."""
    facts = json.loads(texts[7] or "")
    ranks = [rank for rank in listed(facts, "ranks") if type(rank) is int and 0 <= rank < 2**31]
    named = [*strings(facts, "tags"), *strings(facts, "trigger_words")]
    format = facts.get("format")
    words = spelt(str(texts[1])), spelt(*named, *strings(facts, "title")), spelt(*strings(facts, "notes"))
    return Entry(
        (*texts, format if isinstance(format, str) else None),
        max(ranks, default=None),
        frozenset(map(tag_of, named)),
        words,
    )


def listed(facts: dict[str, Any], name: str) -> list[Any]:
    """A list among the facts; one value counts as a list of one."""
    value = facts.get(name, [])
    return list(value) if isinstance(value, list | tuple) else [value]


def strings(facts: dict[str, Any], name: str) -> list[str]:
    """The strings of a list among the facts."""
    return [value for value in listed(facts, name) if isinstance(value, str)]


def tag_of(text: str) -> str:
    """A tag as it is compared."""
    return " ".join(text.casefold().split()).encode(errors="replace").decode()


def spelt(*texts: str) -> str:
    """Texts as words: ``BetterHands_v2`` as ``Better Hands v 2``, beside the texts as they are."""
    return "\n".join(f"{text} {CAMEL.sub(' ', text)}" for text in texts).encode(errors="replace").decode()


def from_row(row: Row, path: Path) -> Model:
    """A row of ``MODEL`` as a model.

    Raises:
        ZooDamaged: the row is not the one that was written.
    """
    *fields, rank, added, crc, _ = row
    try:
        texts = tuple(map(from_text, fields))
        if checksum((*texts, rank, added)) == crc:
            id, name, family, found_by, where, concept, preview, facts, _ = texts
            return Model(id, name, family, FoundBy(found_by), where, concept, preview, json.loads(facts or ""), added)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        pass
    raise damaged_row(path, row[0])


def checksum(fields: Iterable[str | int | None]) -> int:
    """The CRC-32 of a row."""
    return crc32(json.dumps(list(fields)).encode())


def blob_sum(key: int, blob: bytes) -> int:
    """The CRC-32 of the bytes that belong to a key."""
    return crc32(blob, key & 0xFFFFFFFF)


def damaged_row(path: Path, id: object) -> ZooDamaged:
    """The error for a row that fails its checksum."""
    return ZooDamaged(f"{path}: expected the row of model {id!r} as it was written, found another; {RESTORE}")


def put(connection: Connection, entry: Entry, vector: Vector | None, generation: int) -> int:
    """Insert or replace a model and its vector; return its key."""
    known = connection.execute("SELECT key, added FROM models WHERE id = ?", entry.texts[:1]).fetchone()
    added = known[1] if known else entry.added if entry.added is not None else int(time.time())
    values = (*map(to_text, entry.texts), entry.rank, added, checksum((*entry.texts, entry.rank, added)))
    marks = ", ".join("?" * len(COLUMNS))
    if known:
        key = int(known[0])
        connection.execute(f"UPDATE models SET ({', '.join(COLUMNS)}) = ({marks}) WHERE key = ?", (*values, key))
        forget_words(connection, key)
    else:
        key = int(
            connection.execute(f"INSERT INTO models ({', '.join(COLUMNS)}) VALUES ({marks})", values).lastrowid or 0
        )
    put_words(connection, key, entry)
    put_vector(connection, key, vector, generation)
    return key


def put_words(connection: Connection, key: int, entry: Entry) -> None:
    """What a model is filtered and searched by."""
    connection.executemany("INSERT INTO tags VALUES (?, ?)", [(tag, key) for tag in entry.tags])
    connection.execute("INSERT INTO words (rowid, name, tags, notes) VALUES (?, ?, ?, ?)", (key, *entry.words))


def forget_words(connection: Connection, key: int) -> None:
    """The reverse of ``put_words``."""
    connection.execute("DELETE FROM tags WHERE key = ?", (key,))
    connection.execute("DELETE FROM words WHERE rowid = ?", (key,))


def put_vector(connection: Connection, key: int, vector: Vector | None, generation: int) -> None:
    """Insert, replace or take out a vector, unless it is there as it is."""
    known = connection.execute("SELECT vector FROM vectors WHERE key = ?", (key,)).fetchone()
    blob = None if vector is None else to_bytes(vector)
    if (known[0] if known else None) == blob:
        return
    if blob is None:
        take_vector(connection, key, generation)
        return
    connection.execute(
        "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", (key, blob, blob_sum(key, blob), generation)
    )
    if not known:
        connection.execute("UPDATE zoo SET vectors = vectors + 1")


def take_vector(connection: Connection, key: int, generation: int) -> None:
    """Take a vector out, if there is one, and note it for those who have it in memory."""
    if connection.execute("DELETE FROM vectors WHERE key = ?", (key,)).rowcount:
        connection.execute("INSERT INTO removed VALUES (?, ?)", (key, generation))
        connection.execute("UPDATE zoo SET vectors = vectors - 1")


def remove(connection: Connection, id: str, generation: int) -> bool:
    """Take a model out with all that is known of it; return whether it was there."""
    row = connection.execute("SELECT key FROM models WHERE id = ?", (id,)).fetchone()
    if row is None:
        return False
    take_vector(connection, row[0], generation)
    forget_words(connection, row[0])
    connection.execute("DELETE FROM models WHERE key = ?", row)
    return True


def select_in(connection: Connection, statement: str, keys: Sequence[int | str]) -> list[Row]:
    """The rows of a statement that ends in ``IN``, for many keys."""
    found: list[Row] = []
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        found += connection.execute(f"{statement} ({', '.join('?' * len(some))})", some).fetchall()
    return found


def key_of(connection: Connection, id: str) -> int | None:
    """The key of a model, if it is there."""
    row = connection.execute("SELECT key FROM models WHERE id = ?", (id,)).fetchone()
    return None if row is None else int(row[0])


def read_vectors(connection: Connection, dim: int, path: Path, keys: Sequence[int]) -> dict[int, Vector]:
    """The vectors (dim,) of some models by key; those that have none are left out.

    Raises:
        ZooDamaged: a vector is not the one that was written.
    """
    rows = select_in(connection, "SELECT key, vector, crc FROM vectors WHERE key IN", keys)
    return {row[0]: from_bytes(sound(row, 4 * dim, path)) for row in rows}


def read_matrix(connection: Connection, dim: int, path: Path, keys: NDArray[np.int64]) -> Vector:
    """The vectors (n, dim) of models that have one, in the order of their keys (n,).

    Raises:
        ZooDamaged: a vector is missing, or is not the one that was written.
    """
    rows = select_in(connection, "SELECT key, vector, crc FROM vectors WHERE key IN", keys.tolist())
    order, found = np.argsort(keys, kind="stable"), np.array([row[0] for row in rows], np.int64)
    if not np.array_equal(keys[order], np.sort(found)):
        raise damaged_row(path, next(iter(set(keys.tolist()) - set(found.tolist())), None))
    for row in rows:
        sound(row, 4 * dim, path)
    unordered = np.frombuffer(b"".join([row[1] for row in rows]), "<f4").reshape(-1, dim)
    matrix = np.empty((len(keys), dim), np.float32)
    matrix[order] = unordered[np.argsort(found, kind="stable")]
    return matrix


def sound(row: Row, length: int | None, path: Path) -> bytes:
    """The bytes of a row (key, bytes, crc).

    Raises:
        ZooDamaged: they are not those that were written, or of another length.
    """
    key, blob, crc = row
    if (
        type(blob) is not bytes
        or type(key) is not int
        or crc32(blob, key & 0xFFFFFFFF) != crc
        or length not in (None, len(blob))
    ):
        raise damaged_row(path, key)
    return blob


def put_fingerprint(connection: Connection, key: int, data: bytes) -> None:
    """Insert or replace the fingerprint of a model."""
    connection.execute("INSERT OR REPLACE INTO fingerprints VALUES (?, ?, ?)", (key, data, blob_sum(key, data)))


def read_fingerprints(
    connection: Connection, path: Path, ids: Sequence[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Ids and fingerprints of all models that have one, in order of id, or of some.

    Raises:
        ZooDamaged: a fingerprint is not the one that was written.
    """
    statement = "SELECT id, key, data, fingerprints.crc FROM fingerprints JOIN models USING (key)"
    rows = (
        connection.execute(f"{statement} ORDER BY id")
        if ids is None
        else select_in(connection, f"{statement} WHERE id IN", ids)
    )
    for id, *row in rows:
        yield id, sound(tuple(row), None, path)


def put_file(connection: Connection, file: KnownFile, key: int | None) -> None:
    """Insert or replace what is known of a file."""
    values = (to_text(file.path), file.size, file.mtime_ns, key, to_text(file.refusal), file.reader)
    connection.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", values)


def read_files(connection: Connection, ids: Sequence[str] | None = None) -> Iterator[KnownFile]:
    """The files that were read, in order of path, or those of some models."""
    statement = "SELECT files.path, size, mtime_ns, id, refusal, reader FROM files LEFT JOIN models USING (key)"
    rows = (
        connection.execute(f"{statement} ORDER BY files.path")
        if ids is None
        else select_in(connection, f"{statement} WHERE id IN", ids)
    )
    for path, size, mtime_ns, id, refusal, reader in rows:
        yield KnownFile(str(from_text(path)), size, mtime_ns, id, from_text(refusal), reader)
