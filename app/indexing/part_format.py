"""Outcomes <-> the bytes of one Parquet part: plain columns, bounded and checked when they are read, and nothing pickled."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loradex.app.indexing.file_reader import Entry, Outcome
from loradex.app.previews import is_preview
from loradex.index import FoundBy, KnownFile, Model
from loradex.retrieval.fingerprint import SIZE as FINGERPRINT

MOST_ROWS: Final = 4096
LARGEST_TEXT: Final = 2**20  # characters
LARGEST_PREVIEW: Final = 2**20  # bytes
ID: Final = re.compile(r"[0-9a-f]{20}")
TEXTS: Final = ("id", "name", "family", "found_by", "path")
TOLERANCE: Final = 1e-3  # of the length of a unit vector


class BadPart(ValueError):
    """Bytes that are no part."""


def layout(dim: int) -> pa.Schema:
    """The columns of a part; ``file`` and ``model`` are JSON in ASCII, so that every path comes back as it was."""
    columns = [("file", pa.string()), ("refusal", pa.string()), ("noted", pa.bool_()), ("model", pa.string())]
    return pa.schema(
        [*columns, ("vector", pa.list_(pa.float32(), dim)), ("fingerprint", pa.binary()), ("preview", pa.binary())]
    )


def part_of(outcomes: Sequence[Outcome], dim: int) -> bytes:
    """Outcomes as a part; the same outcomes are the same bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pylist([row_of(outcome) for outcome in outcomes], layout(dim)),
        sink,
        compression="none",
        use_dictionary=False,
    )
    return sink.getvalue().to_pybytes()


def row_of(outcome: Outcome) -> dict[str, Any]:
    """An outcome as a row."""
    row = {"file": json.dumps(asdict(outcome.file)), "refusal": json.dumps(outcome.refusal), "noted": outcome.noted}
    if outcome.entry is None:
        return row
    entry = outcome.entry
    return row | {
        "model": json.dumps(asdict(entry.model)),
        "vector": entry.vector,
        "fingerprint": entry.fingerprint,
        "preview": entry.preview,
    }


def outcomes_of(raw: bytes, dim: int) -> list[Outcome]:
    """The outcomes of a part that anyone may have written.

    Raises:
        BadPart: it is none.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        said = file.metadata
        if not file.schema_arrow.equals(layout(dim)) or said.num_rows > MOST_ROWS or said.num_row_groups > 1:
            raise BadPart("other columns, or too many rows")
        for column in range(said.num_columns if said.num_rows else 0):
            chunk = said.row_group(0).column(column)
            if (
                chunk.compression != "UNCOMPRESSED"
                or "RLE_DICTIONARY" in chunk.encodings
                or chunk.total_uncompressed_size > len(raw)
            ):
                raise BadPart("compressed columns")
        table = file.read()
        table.validate(full=True)
        return [outcome_of(row) for row in table.to_pylist()]
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


def outcome_of(row: dict[str, Any]) -> Outcome:
    """The outcome of a row.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    file, refusal = KnownFile(**json.loads(bounded(row["file"]))), json.loads(bounded(row["refusal"]))
    kinds = [type(value) for value in (file.path, file.size, file.mtime_ns, file.reader, row["noted"])]
    if kinds != [str, int, int, str, bool] or file.model_id is not None or file.refusal is not None:
        raise ValueError("no file")
    if row["model"] is None:
        if not isinstance(refusal, str):
            raise ValueError("neither model nor refusal")
        return Outcome(file, None, refusal, row["noted"])
    return Outcome(file, entry_of(row, file.path), None, row["noted"])


def entry_of(row: dict[str, Any], path: str) -> Entry:
    """The entry of a row, for a file.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    model = Model(**json.loads(bounded(row["model"])))
    texts = [getattr(model, name) for name in TEXTS]
    if (
        not all(isinstance(text, str) for text in texts)
        or not isinstance(model.concept, str | None)
        or not isinstance(model.facts, dict)
    ):
        raise ValueError("a model of other types")
    if not ID.fullmatch(model.id) or model.path != path or model.preview is not None or model.added is not None:
        raise ValueError("a model of another file")
    vector = None if row["vector"] is None else np.array(row["vector"], np.float32)
    if vector is not None and not abs(float(np.linalg.norm(vector)) - 1) < TOLERANCE:
        raise ValueError("a vector of another length than 1")
    found_by = FoundBy(model.found_by)
    if (found_by is FoundBy.WEIGHTS) != (vector is not None):
        raise ValueError("a vector where there is none, or none where there is one")
    fingerprint, preview = row["fingerprint"], row["preview"]
    if fingerprint is not None and len(fingerprint) != 8 + FINGERPRINT:
        raise ValueError("no fingerprint")
    if preview is not None and not (len(preview) <= LARGEST_PREVIEW and is_preview(preview)):
        raise ValueError("no preview")
    facts = asdict(model) | {"found_by": found_by}
    return Entry(Model(**facts), vector, fingerprint, preview)


def bounded(text: str) -> str:
    """A text that is not too long.

    Raises:
        ValueError: it is.
    """
    if len(text) > LARGEST_TEXT:
        raise ValueError("too long a text")
    return text
