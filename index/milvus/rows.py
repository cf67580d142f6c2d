"""The rows of Milvus's collections, made of models, their positions and files, and read back.

Fields ``record``, ``places`` and ``fingerprint`` hold a model, its positions and a file unchanged; all others are
derived from them for filters and search. Words, tags and paths become short ASCII codes, so that no tokenizer,
collation or escape rule of a server matters.
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

from loradex.index.entry import Entry
from loradex.index.errors import RESTORE, BadModel, ZooDamaged
from loradex.index.evidence import CODES, PLACED, Evidence, Position, Positions, evidence_of, from_bits, to_bits
from loradex.index.model import KnownFile, Model
from loradex.index.sqlite.rows import facts_of_file
from loradex.index.vectors import from_bytes, scored_rows, to_bytes

Row = dict[str, Any]

PLAIN: Final = re.compile(r"[A-Za-z0-9 ._+-]{1,64}")  # text that is its own code
WORD: Final = re.compile(r"[^\W_]+")
SEPARATORS: Final = "/\\"
MAX_TEXT_BYTES: Final = 65_535  # of a VARCHAR of Milvus
CHUNK: Final = 65_000  # bytes
MAX_CHUNKS: Final = 64
MAX_ELEMENTS: Final = 4096  # of an ARRAY of Milvus
MAX_TOKEN_LENGTH: Final = 40
WORD_WEIGHTS: Final = (10, 5, 1)  # how often a word of the names, of the tags, of the notes is written
NO_RANK: Final = -1
FILTERED: Final = ("shard", "family", "format", "rank", "added", "tags", "folders")  # fields that positions share


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
    for text, weight in zip(entry.texts.words, WORD_WEIGHTS, strict=True):
        for token in tokens(text):
            weights[token] += weight
    text = " ".join([*weights, *(token for token, weight in weights.items() for _ in range(weight - 1))])
    return text if len(text) < MAX_TEXT_BYTES else text[:MAX_TEXT_BYTES].rpartition(" ")[0]


def model_row(
    entry: Entry, added: int, positions: Positions, files: Sequence[KnownFile], fingerprint: Sequence[str]
) -> Row:
    """Return the row of a model with its positions, its files, and a packed fingerprint, which is empty for none.

    Raises:
        BadModel: it does not fit a row of Milvus.
    """
    if not is_id(entry.id):
        raise BadModel(
            f"model {entry.id!r}: expected an id of up to 64 letters, digits, spaces and ._+- for Milvus, found another; correct the model"
        )
    whole = entry.with_files(files)
    tags = whole.texts.tag_set
    if len(tags) > MAX_ELEMENTS:
        raise BadModel(
            f"model {entry.id!r}: expected at most {MAX_ELEMENTS} tags for Milvus, found {len(tags)}; correct the model"
        )
    return {
        "id": entry.id,
        "shard": shard_of(entry.id),
        "family": code(entry.family),
        "format": "" if entry.format is None else code(entry.format),
        "evidence": to_bits(evidence_of(positions)),
        "rank": NO_RANK if entry.rank is None else entry.rank,
        "added": added,
        "tags": sorted(map(code, tags)),
        "folders": folder_codes((entry.path, *(file.path for file in files))),
        "words": weighted_words(whole),
        "places": pack_positions(positions),
        "fingerprint": list(fingerprint),
        "record": pack([*entry.fields[:7], added]),
    }


def model_of_row(row: Row, place: object) -> Model:
    """Return the model of a row.

    Raises:
        ZooDamaged: the row is not as it was written.
    """
    try:
        id, name, family, path, concept, preview, facts, added = unpack(row["record"])
        if id == row["id"] and type(added) is int:
            evidence = from_bits(row["evidence"])
            return Model(id, name, family, path, concept, preview, json.loads(facts), added, evidence)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise damaged_model_error(row, place)


def damaged_model_error(row: Row, place: object) -> ZooDamaged:
    """The error of a model's row that is not as it was written."""
    return ZooDamaged(
        f"{place}: expected the row of model {row.get('id')!r} as it was written, found another; {RESTORE}"
    )


def pack_positions(positions: Positions) -> list[str]:
    """Pack the positions of a model, bit by bit; the result is empty if there is none."""
    values = {
        CODES[kind]: (at.scale, at.bias, b64encode(to_bytes(at.vector)).decode()) for kind, at in positions.items()
    }
    return pack(values) if values else []


def positions_of_row(row: Row, dim: int, place: object) -> dict[Evidence, Position]:
    """Return the positions of a model's row, the weightiest evidence first.

    Raises:
        ZooDamaged: the row is not as it was written.
    """
    try:
        values = unpack(row["places"]) if row["places"] else {}
        positions = {}
        for kind in PLACED:
            if str(CODES[kind]) in values:
                scale, bias, data = values.pop(str(CODES[kind]))
                position = Position(from_bytes(b64decode(data, validate=True)), float(scale), float(bias))
                if len(position.vector) != dim:
                    break
                positions[kind] = position
        if not values:
            return positions
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise damaged_model_error(row, place)


def position_rows(row: Row, positions: Positions) -> list[Row]:
    """Return the rows of a model's positions, with what filters need of the model's row."""
    shared = {field: row[field] for field in FILTERED}
    rows = []
    for kind, at in positions.items():
        (vector,) = scored_rows(at.vector[None], [at.scale], [at.bias]).tolist()
        rows.append(
            shared | {"id": position_id(row["id"], kind), "model": row["id"], "kind": CODES[kind], "vector": vector}
        )
    return rows


def position_id(model_id: str, kind: Evidence) -> str:
    """Return the id of the row of a position; no model's id has a colon."""
    return f"{model_id}:{CODES[kind]}"


def file_row(file: KnownFile) -> Row:
    """Return the row of a file.

    Raises:
        BadModel: it does not fit a row of Milvus, or its facts are not JSON.
    """
    facts_of_file(file)
    id = digest(file.path)
    fields = (file.path, file.size, file.mtime_ns, file.model_id, file.refusal, file.reader, file.name, file.facts)
    return {
        "id": id,
        "shard": shard_of(id),
        "model": file.model_id or "",
        "record": pack(fields),
        "nothing": [0.0, 0.0],
    }


def file_of_row(row: Row, place: object) -> KnownFile:
    """Return the file of a row; one of layout 1 has no name and no facts.

    Raises:
        ZooDamaged: the row is not as it was written.
    """
    try:
        file = KnownFile(*unpack(row["record"]))
        if isinstance(file.facts, dict):
            return file
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ZooDamaged(f"{place}: expected the row of a file as it was written, found another; {RESTORE}")
