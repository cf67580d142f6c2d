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

from loradex.app.indexing.file_reader import NO_EXPERT, ReadResult, ZooEntry
from loradex.app.previews import is_preview
from loradex.index import FoundBy, KnownFile, Model
from loradex.retrieval.errors import NoExpertReason
from loradex.retrieval.fingerprint import SIZE as FINGERPRINT_NUMBERS

MAX_ROWS: Final = 4096
MAX_JSON_CHARACTERS: Final = 2**20  # of one cell
MAX_PREVIEW_BYTES: Final = 2**20
MODEL_ID: Final = re.compile(r"[0-9a-f]{20}")
TEXT_FIELDS: Final = ("id", "name", "family", "found_by", "path")  # of a model
UNIT_TOLERANCE: Final = 1e-3  # of the length of a unit vector


class BadPart(ValueError):
    """The bytes are not a part, or break a rule of the format."""


def part_schema(dim: int) -> pa.Schema:
    """The columns of a part. ``file`` and ``model`` are ASCII JSON, so that paths that are not Unicode survive."""
    return pa.schema(
        [
            ("file", pa.string()),
            ("refusal", pa.string()),
            ("noted", pa.bool_()),  # ``ReadResult.permanent``
            ("model", pa.string()),
            ("vector", pa.list_(pa.float32(), dim)),
            ("fingerprint", pa.binary()),
            ("preview", pa.binary()),
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
        "vector": entry.vector,
        "fingerprint": entry.fingerprint,
        "preview": entry.preview,
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
    if types != [str, int, int, str, bool] or file.model_id is not None or file.refusal is not None:
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
    vector = None if row["vector"] is None else np.array(row["vector"], np.float32)
    if vector is not None and not abs(float(np.linalg.norm(vector)) - 1) < UNIT_TOLERANCE:
        raise ValueError("a vector with another length than 1")
    found_by = FoundBy(model.found_by)
    if (found_by is FoundBy.WEIGHTS) != (vector is not None):
        raise ValueError("by weights without a vector, or by metadata with one")
    if NO_EXPERT in model.facts and (found_by is FoundBy.WEIGHTS or model.facts[NO_EXPERT] not in set(NoExpertReason)):
        raise ValueError("an unknown reason for metadata only, or one by weights")
    fingerprint, preview = row["fingerprint"], row["preview"]
    if fingerprint is not None and len(fingerprint) != 8 + FINGERPRINT_NUMBERS:
        raise ValueError("a fingerprint with another length")
    if preview is not None and not (len(preview) <= MAX_PREVIEW_BYTES and is_preview(preview)):
        raise ValueError("a preview that is not a small PNG")
    return ZooEntry(replace(model, found_by=found_by), vector, fingerprint, preview)


def check_length(text: str) -> str:
    """Return a text if it is not too long.

    Raises:
        ValueError: it is.
    """
    if len(text) > MAX_JSON_CHARACTERS:
        raise ValueError("a text that is too long")
    return text
