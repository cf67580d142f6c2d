"""Models and files as rows of Milvus's collections, and back.

``record`` holds a model or a file as it is; the other columns are made of it, to filter and search by. Words, tags and paths of any letters and
length become short ASCII, so that no server's tokenizer, collation or escape rules matter.
"""

import json
import re
import unicodedata
import zlib
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from loradex.index.errors import RESTORE, BadModel, ZooDamaged
from loradex.index.model import FoundBy, KnownFile, Model
from loradex.index.sqlite.rows import Entry
from loradex.index.vectors import Vector

Row = dict[str, Any]

PLAIN: Final = re.compile(r"[A-Za-z0-9 ._+-]{1,64}")
WORD: Final = re.compile(r"[^\W_]+")
SEPARATORS: Final = "/\\"
LONGEST: Final = 65_535  # bytes of a text in Milvus
CHUNK: Final = 65_000
MOST_CHUNKS: Final = 64
MOST_TAGS: Final = 4096  # as many elements as an array of Milvus has
LONGEST_WORD: Final = 40
WEIGHTS: Final = (10, 5, 1)  # of words in a name, in tags, in notes: how often each is written
NO_RANK: Final = -1


def packed(value: object) -> list[str]:
    """JSON as texts that Milvus takes.

    Raises:
        BadModel: there is too much of it.
    """
    text = b64encode(zlib.compress(json.dumps(value).encode())).decode()
    chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
    if len(chunks) > MOST_CHUNKS:
        raise BadModel(
            f"record: expected at most {MOST_CHUNKS * CHUNK:,} bytes for Milvus, found {len(text):,}; leave notes or tags out"
        )
    return chunks


def unpacked(chunks: Sequence[str]) -> Any:
    """The reverse of ``packed``.

    Raises:
        ValueError, TypeError: the texts are none of it.
    """
    try:
        return json.loads(zlib.decompress(b64decode("".join(chunks), validate=True)))
    except zlib.error as error:
        raise ValueError(str(error)) from None


def code(text: str) -> str:
    """A text as Milvus compares it: itself, or where it is long or has letters that need care, a hash."""
    return text if PLAIN.fullmatch(text) else f"~{digest(text)}"


def digest(text: str) -> str:
    """A hash of any text, in 32 hexadecimal digits."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_id(id: str) -> bool:
    """Whether a model may have this id in Milvus."""
    return isinstance(id, str) and PLAIN.fullmatch(id) is not None


def shard_of(id: str) -> int:
    """A number of 32 bits, evenly spread, by which a collection is read in parts."""
    return zlib.crc32(id.encode())


def folders_of(paths: Iterable[str | None]) -> list[str]:
    """The codes of all folders, each with its last separator, that hold one of some paths.

    Raises:
        BadModel: there are more than Milvus takes.
    """
    found = {code(path[: end + 1]) for path in paths if path for end, letter in enumerate(path) if letter in SEPARATORS}
    if len(found) > MOST_TAGS:
        raise BadModel(
            f"files of a model: expected at most {MOST_TAGS} folders above them for Milvus, found {len(found)}; delete copies"
        )
    return sorted(found)


def tokens(text: str) -> list[str]:
    """The words of a text, without case and accents, each as Milvus's standard tokenizer leaves it whole."""
    plain = "".join(
        letter for letter in unicodedata.normalize("NFD", text.casefold()) if not "\u0300" <= letter <= "\u036f"
    )
    return [
        word if word.isascii() and len(word) <= LONGEST_WORD else f"x{digest(word)}"
        for word in WORD.findall(unicodedata.normalize("NFC", plain))
    ]


def words_of(entry: Entry) -> str:
    """The words of a model, each once, then again as often as its weight says; what has no room is left out."""
    counts: Counter[str] = Counter()
    for text, weight in zip(entry.words, WEIGHTS, strict=True):
        for token in tokens(text):
            counts[token] += weight
    words = [*counts, *(token for token, count in counts.items() for _ in range(count - 1))]
    return (
        " ".join(words)[:LONGEST].rpartition(" ")[0] if sum(map(len, words)) + len(words) > LONGEST else " ".join(words)
    )


def to_row(
    entry: Entry, added: int, vector: Vector | None, dim: int, paths: Iterable[str | None], fingerprint: Sequence[str]
) -> Row:
    """A model's row.

    Raises:
        BadModel: Milvus has no room for it.
    """
    id, name, family, found_by, *_, format = entry.texts
    if not is_id(str(id)):
        raise BadModel(
            f"model {id!r}: expected an id of up to 64 letters, digits, spaces and ._+- for Milvus, found another; mend the model"
        )
    if len(entry.tags) > MOST_TAGS:
        raise BadModel(
            f"model {id!r}: expected at most {MOST_TAGS} tags for Milvus, found {len(entry.tags)}; mend the model"
        )
    return {
        "id": id,
        "shard": shard_of(str(id)),
        "family": code(str(family)),
        "format": "" if format is None else code(format),
        "found_by": found_by,
        "rank": NO_RANK if entry.rank is None else entry.rank,
        "added": added,
        "tags": sorted(map(code, entry.tags)),
        "folders": folders_of(paths),
        "words": words_of(entry),
        "placed": vector is not None,
        "vector": (np.zeros(dim, np.float32) if vector is None else vector).tolist(),
        "fingerprint": list(fingerprint),
        "record": packed([*entry.texts[:8], added]),
    }


def from_row(row: Row, where: str) -> Model:
    """The model of a row.

    Raises:
        ZooDamaged: the row is none of Loradex.
    """
    try:
        id, name, family, found_by, path, concept, preview, facts, added = unpacked(row["record"])
        if id == row["id"] and type(added) is int:
            return Model(id, name, family, FoundBy(found_by), path, concept, preview, json.loads(facts), added)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ZooDamaged(
        f"{where}: expected the row of model {row.get('id')!r} as it was written, found another; {RESTORE}"
    )


def vector_of(row: Row) -> Vector | None:
    """The vector (dim,) of a row, if it has one."""
    return np.array(row["vector"], np.float32) if row["placed"] else None


def file_row(file: KnownFile) -> Row:
    """A file's row."""
    id = digest(file.path)
    record = packed([file.path, file.size, file.mtime_ns, file.model_id, file.refusal, file.reader])
    return {"id": id, "shard": shard_of(id), "model": file.model_id or "", "record": record, "nothing": [0.0, 0.0]}


def from_file_row(row: Row, where: str) -> KnownFile:
    """The file of a row.

    Raises:
        ZooDamaged: the row is none of Loradex.
    """
    try:
        return KnownFile(*unpacked(row["record"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ZooDamaged(f"{where}: expected the row of a file as it was written, found another; {RESTORE}") from None
