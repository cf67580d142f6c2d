"""The Parquet format of one part: read results as plain columns.

A part comes from a worker or from disk, so decoding checks every bound and type, and nothing is unpickled.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loradex.app.indexing.evidence.kinds import FROM_WEIGHTS
from loradex.app.indexing.evidence.preview import open_copy
from loradex.app.indexing.file_reader import ReadResult, ZooEntry
from loradex.app.models import NO_EXPERT
from loradex.app.pictures import MAX_PICTURES
from loradex.index import Evidence, KnownFile, Model, Position
from loradex.index.checks import LARGEST_SCALE
from loradex.retrieval.errors import NoExpertReason
from loradex.retrieval.fingerprint import SIZE as FINGERPRINT_NUMBERS

MAX_ROWS: Final = 4096
MAX_JSON_CHARACTERS: Final = 2**20  # of one cell
MODEL_ID: Final = re.compile(r"[0-9a-f]{20}")
TEXT_FIELDS: Final = ("id", "name", "family", "path")  # of a model
UNIT_TOLERANCE: Final = 1e-3  # of the length of a unit vector


class BadPart(ValueError):
    """The bytes are not a part, or break a rule of the format."""


def part_schema(dim: int) -> pa.Schema:
    """The columns of a part. What holds paths is ASCII JSON, so that those that are not Unicode survive."""
    position = pa.struct(
        [
            ("kind", pa.string()),
            ("vector", pa.list_(pa.float32(), dim)),
            ("scale", pa.float64()),
            ("bias", pa.float64()),
        ]
    )
    return pa.schema(
        [
            ("file", pa.string()),
            ("refusal", pa.string()),
            ("noted", pa.bool_()),  # ``ReadResult.permanent``
            ("model", pa.string()),
            ("positions", pa.list_(position)),
            ("fingerprint", pa.binary()),
            ("pictures", pa.list_(pa.binary())),
            ("bad_pictures", pa.string()),
        ]
    )


def encode_part(results: Sequence[ReadResult], dim: int) -> bytes:
    """Encode results; the same results always give the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pylist([encode_row(result) for result in results], part_schema(dim)),
        sink,
        compression="none",
        use_dictionary=False,
    )
    return sink.getvalue().to_pybytes()


def encode_row(result: ReadResult) -> dict[str, Any]:
    """Encode one result as a row."""
    row = {"file": json.dumps(asdict(result.file)), "refusal": json.dumps(result.refusal), "noted": result.permanent}
    if result.entry is None:
        return row
    entry = result.entry
    return row | {
        "model": json.dumps(asdict(entry.model)),
        "positions": [{"kind": str(kind)} | asdict(position) for kind, position in entry.positions.items()],
        "fingerprint": entry.fingerprint,
        "pictures": list(entry.pictures),
        "bad_pictures": json.dumps(dict(entry.bad_pictures)),
    }


def decode_part(raw: bytes, dim: int) -> list[ReadResult]:
    """Decode a part from any source.

    Raises:
        BadPart: the bytes are not a part of vectors (dim,), or break a rule of the format.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        metadata = file.metadata
        if (
            not file.schema_arrow.equals(part_schema(dim))
            or metadata.num_rows > MAX_ROWS
            or metadata.num_row_groups > 1
        ):
            raise BadPart("other columns, or too many rows")
        for column in range(metadata.num_columns if metadata.num_rows else 0):
            chunk = metadata.row_group(0).column(column)
            if (
                chunk.compression != "UNCOMPRESSED"
                or "RLE_DICTIONARY" in chunk.encodings
                or chunk.total_uncompressed_size > len(raw)
            ):
                raise BadPart("compressed columns")
        table = file.read()
        table.validate(full=True)
        return [decode_row(row) for row in table.to_pylist()]
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise BadPart((str(error).splitlines() or [type(error).__name__])[0][:200]) from None


def decode_row(row: dict[str, Any]) -> ReadResult:
    """Decode one row.

    Raises:
        ValueError, TypeError, KeyError: the row breaks a rule of the format.
    """
    file = KnownFile(**json.loads(check_length(row["file"])))
    refusal = json.loads(check_length(row["refusal"]))
    types = [type(value) for value in (file.path, file.size, file.mtime_ns, file.reader, row["noted"])]
    if types != [str, int, int, str, bool] or (file.model_id, file.refusal, file.name, file.facts) != (
        None,
        None,
        None,
        {},
    ):
        raise ValueError("no file")
    if row["model"] is None:
        if not isinstance(refusal, str):
            raise ValueError("neither model nor refusal")
        return ReadResult(file, None, refusal, row["noted"])
    return ReadResult(file, decode_entry(row, file.path), None, row["noted"])


def decode_entry(row: dict[str, Any], path: str) -> ZooEntry:
    """Decode the entry in a row, for the file at ``path``.

    Raises:
        ValueError, TypeError, KeyError: the row breaks a rule of the format.
    """
    model = Model(**json.loads(check_length(row["model"])))
    texts = [getattr(model, name) for name in TEXT_FIELDS]
    if (
        not all(isinstance(text, str) for text in texts)
        or not isinstance(model.concept, str | None)
        or not isinstance(model.facts, dict)
    ):
        raise ValueError("a model with other types")
    if not MODEL_ID.fullmatch(model.id) or model.path != path or model.preview is not None or model.added is not None:
        raise ValueError("a model of another file")
    if model.evidence:
        raise ValueError("evidence without positions")
    positions = dict(map(decode_position, row["positions"]))
    if not positions.keys() <= FROM_WEIGHTS.keys() or len(positions) != len(row["positions"]):
        raise ValueError("positions of another kind, or two of one kind")
    if NO_EXPERT in model.facts and (
        Evidence.PICTURE in positions or model.facts[NO_EXPERT] not in set(NoExpertReason)
    ):
        raise ValueError("an unknown reason why no expert reads a file, or one for a file that was read")
    fingerprint, pictures = row["fingerprint"], row["pictures"]
    if fingerprint is not None and len(fingerprint) != 8 + FINGERPRINT_NUMBERS:
        raise ValueError("a fingerprint with another length")
    bad_pictures = json.loads(check_length(row["bad_pictures"]))
    texts = [*bad_pictures.keys(), *bad_pictures.values()]
    if max(len(pictures), len(bad_pictures)) > MAX_PICTURES or not all(isinstance(text, str) for text in texts):
        raise ValueError("too many pictures, or no reasons")
    for picture in pictures:
        open_copy(picture)
    return ZooEntry(replace(model, evidence=()), positions, fingerprint, tuple(pictures), bad_pictures)


def decode_position(row: dict[str, Any]) -> tuple[Evidence, Position]:
    """Decode a position and its kind.

    Raises:
        ValueError, TypeError, KeyError: it breaks a rule of the format.
    """
    vector, scale, bias = np.array(row["vector"], np.float32), row["scale"], row["bias"]
    if not abs(float(np.linalg.norm(vector)) - 1) < UNIT_TOLERANCE:
        raise ValueError("a vector with another length than 1")
    if not 0 < scale <= LARGEST_SCALE or not abs(bias) <= LARGEST_SCALE:
        raise ValueError("a scale or a bias out of range")
    return Evidence(row["kind"]), Position(vector, scale, bias)


def check_length(text: str) -> str:
    """Return a text if it is not too long.

    Raises:
        ValueError: it is.
    """
    if len(text) > MAX_JSON_CHARACTERS:
        raise ValueError("a text that is too long")
    return text
