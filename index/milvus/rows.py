"""The rows of Milvus's collections, made of models and files, and read back.

Field ``record`` holds a model or a file unchanged; the other fields are derived from it for filters and search. Words,
tags and paths become short ASCII codes, so that no tokenizer, collation or escape rule of a server matters.
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

from loradex.index.entry import Entry
from loradex.index.errors import RESTORE, BadModel, ZooDamaged
from loradex.index.model import FoundBy, KnownFile, Model
from loradex.index.vectors import Vector

Row = dict[str, Any]

PLAIN: Final = re.compile(r"[A-Za-z0-9 ._+-]{1,64}")  # text that is its own code
WORD: Final = re.compile(r"[^\W_]+")
SEPARATORS: Final = "/\\"
MAX_TEXT_BYTES: Final = 65_535  # of a VARCHAR of Milvus
CHUNK: Final = 65_000  # bytes
MAX_CHUNKS: Final = 64
MAX_ELEMENTS: Final = 4096  # of an ARRAY of Milvus
MAX_TOKEN_LENGTH: Final = 40
WORD_WEIGHTS: Final = (10, 5, 1)  # how often a word of the name, of the tags, of the notes is written
NO_RANK: Final = -1


def pack(value: object) -> list[str]:
    """Compress a JSON value into texts that fit an ARRAY of Milvus.

    Raises:
        BadModel: it is too large.
    """
    text = b64encode(zlib.compress(json.dumps(value).encode())).decode()
    chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)]
    if len(chunks) > MAX_CHUNKS:
        raise BadModel(
            f"record: expected at most {MAX_CHUNKS * CHUNK:,} bytes for Milvus, found {len(text):,}; leave notes or tags out"
        )
    return chunks


def unpack(chunks: Sequence[str]) -> Any:
    """Return the value of ``pack``.

    Raises:
        ValueError, TypeError: the texts are not its result.
    """
    try:
        return json.loads(zlib.decompress(b64decode("".join(chunks), validate=True)))
    except zlib.error as error:
        raise ValueError(str(error)) from None


def code(text: str) -> str:
    """Return a text if it is short and plain ASCII, else ``~`` and its hash."""
    return text if PLAIN.fullmatch(text) else f"~{digest(text)}"


def digest(text: str) -> str:
    """Return a hash of a text in 32 hexadecimal digits."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_id(id: str) -> bool:
    """Whether a row may have this id."""
    return isinstance(id, str) and PLAIN.fullmatch(id) is not None


def shard_of(id: str) -> int:
    """Return an evenly distributed number of 32 bits, by ranges of which a collection is scanned."""
    return zlib.crc32(id.encode())


def folder_codes(paths: Iterable[str | None]) -> list[str]:
    """Return the codes of all folders, with their last separator, that hold one of some paths.

    Raises:
        BadModel: there are more than fit an ARRAY of Milvus.
    """
    codes = {code(path[: end + 1]) for path in paths if path for end, letter in enumerate(path) if letter in SEPARATORS}
    if len(codes) > MAX_ELEMENTS:
        raise BadModel(
            f"files of a model: expected at most {MAX_ELEMENTS} folders above them for Milvus, found {len(codes)}; delete copies"
        )
    return sorted(codes)


def tokens(text: str) -> list[str]:
    """Return the words of a text without case and accents, each as one token of Milvus's standard tokenizer.

    Words that are long or not ASCII become a hash.
    """
    decomposed = unicodedata.normalize("NFD", text.casefold())
    plain = "".join(letter for letter in decomposed if not "\u0300" <= letter <= "\u036f")
    words = WORD.findall(unicodedata.normalize("NFC", plain))
    return [word if word.isascii() and len(word) <= MAX_TOKEN_LENGTH else f"x{digest(word)}" for word in words]


def weighted_words(entry: Entry) -> str:
    """Return the tokens of a model, each once, then each again as often as its weight says.

    They are cut to what fits a VARCHAR of Milvus.
    """
    weights: Counter[str] = Counter()
    for text, weight in zip(entry.words, WORD_WEIGHTS, strict=True):
        for token in tokens(text):
            weights[token] += weight
    text = " ".join([*weights, *(token for token, weight in weights.items() for _ in range(weight - 1))])
    return text if len(text) < MAX_TEXT_BYTES else text[:MAX_TEXT_BYTES].rpartition(" ")[0]


def model_row(
    entry: Entry, added: int, vector: Vector | None, dim: int, paths: Iterable[str | None], fingerprint: Sequence[str]
) -> Row:
    """Return the row of a model with files at some paths and a packed fingerprint, which is empty for none.

    Raises:
        BadModel: it does not fit a row of Milvus.
    """
    if not is_id(entry.id):
        raise BadModel(
            f"model {entry.id!r}: expected an id of up to 64 letters, digits, spaces and ._+- for Milvus, found another; correct the model"
        )
    if len(entry.tags) > MAX_ELEMENTS:
        raise BadModel(
            f"model {entry.id!r}: expected at most {MAX_ELEMENTS} tags for Milvus, found {len(entry.tags)}; correct the model"
        )
    return {
        "id": entry.id,
        "shard": shard_of(entry.id),
        "family": code(entry.family),
        "format": "" if entry.format is None else code(entry.format),
        "found_by": entry.found_by,
        "rank": NO_RANK if entry.rank is None else entry.rank,
        "added": added,
        "tags": sorted(map(code, entry.tags)),
        "folders": folder_codes((entry.path, *paths)),
        "words": weighted_words(entry),
        "placed": vector is not None,
        "vector": (np.zeros(dim, np.float32) if vector is None else vector).tolist(),
        "fingerprint": list(fingerprint),
        "record": pack([*entry.texts[:8], added]),
    }


def model_of_row(row: Row, place: object) -> Model:
    """Return the model of a row.

    Raises:
        ZooDamaged: the row is not as it was written.
    """
    try:
        id, name, family, found_by, path, concept, preview, facts, added = unpack(row["record"])
        if id == row["id"] and type(added) is int:
            return Model(id, name, family, FoundBy(found_by), path, concept, preview, json.loads(facts), added)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ZooDamaged(
        f"{place}: expected the row of model {row.get('id')!r} as it was written, found another; {RESTORE}"
    )


def vector_of_row(row: Row) -> Vector | None:
    """Return the vector (dim,) of a row, or None if its model has none."""
    return np.array(row["vector"], np.float32) if row["placed"] else None


def file_row(file: KnownFile) -> Row:
    """Return the row of a file.

    Raises:
        BadModel: it does not fit a row of Milvus.
    """
    id = digest(file.path)
    record = pack([file.path, file.size, file.mtime_ns, file.model_id, file.refusal, file.reader])
    return {"id": id, "shard": shard_of(id), "model": file.model_id or "", "record": record, "nothing": [0.0, 0.0]}


def file_of_row(row: Row, place: object) -> KnownFile:
    """Return the file of a row.

    Raises:
        ZooDamaged: the row is not as it was written.
    """
    try:
        return KnownFile(*unpack(row["record"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ZooDamaged(f"{place}: expected the row of a file as it was written, found another; {RESTORE}") from None
