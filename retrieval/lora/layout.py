"""What a safetensors header says of its tensors. Format: https://github.com/huggingface/safetensors#format."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch

from retrieval.errors import FileCorrupt, FileUnsupported

MOST_TENSORS: Final = 20_000
CACHED_LAYOUTS: Final = 64  # files of one folder share most of theirs
LARGEST_CACHED: Final = 2**20  # characters
METADATA: Final = "__metadata__"
METADATA_FIRST: Final = re.compile(r'\{[ \t\r\n]*"__metadata__"[ \t\r\n]*:[ \t\r\n]*')
BETWEEN: Final = re.compile(r"[ \t\r\n]*(,(?![ \t\r\n]*\})|(?=\}))")  # a comma with another entry behind it, or the end
BLANK: Final = " \t\r\n"
DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header describes it; ``start`` and ``end`` are bytes from the beginning of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The tensors of a file, without gaps from the beginning of the data; ``size`` is in bytes."""

    tensors: dict[str, TensorInfo]
    size: int
    metadata: dict[str, str] | None


def parse_header(raw: bytes) -> tuple[dict[str, str], Layout]:
    """Metadata and layout; the layout of a header like one that was read before is the same object.

    Raises:
        FileCorrupt: the header contradicts itself.
        FileUnsupported: it names more tensors than any LoRA has.
    """
    try:
        text = raw.decode().rstrip(BLANK)
        first = METADATA_FIRST.match(text)
        if first:
            metadata, end = DECODER.raw_decode(text, first.end())
            between = BETWEEN.match(text, end)
            if between is None:
                raise ValueError(f"expected a comma behind {METADATA}")
            text = "{" + text[between.end() :]
        layout = (cached_layout if len(text) <= LARGEST_CACHED else parse_layout)(text)
    except (ValueError, RecursionError) as error:
        raise FileCorrupt(f"the header is not valid JSON: {str(error)[:80]}; download it again") from None
    if first:
        if layout.metadata is not None:
            raise FileCorrupt(f"expected one {METADATA} in the header, found two; save it again with safetensors")
        return check_metadata(metadata), layout
    return layout.metadata or {}, layout


def parse_layout(text: str) -> Layout:
    """The layout that a header's JSON describes.

    Raises:
        ValueError, RecursionError: it is no JSON.
        FileCorrupt, FileUnsupported: as ``parse_header``.
    """
    if text.count('"data_offsets"') > MOST_TENSORS:
        raise FileUnsupported(f"expected a LoRA of up to {MOST_TENSORS} tensors, found more; choose another file")
    entries = DECODER.decode(text)
    if not isinstance(entries, dict):
        raise FileCorrupt(f"expected a JSON object as header, found {type(entries).__name__}; download it again")
    if len(entries) > MOST_TENSORS:
        raise FileUnsupported(f"expected a LoRA of up to {MOST_TENSORS} tensors, found {len(entries)}; choose another file")
    metadata = check_metadata(entries.pop(METADATA)) if METADATA in entries else None
    tensors = {name: tensor_info(name, entry) for name, entry in entries.items()}
    end = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != end:
            raise FileCorrupt(f"tensor {name[:80]!r}: expected to begin at byte {end} of the data, found {info.start}; download it again")
        end = info.end
    return Layout(tensors, end, metadata)


cached_layout = lru_cache(CACHED_LAYOUTS)(parse_layout)


def check_metadata(metadata: Any) -> dict[str, str]:
    """Metadata that map text to text."""
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileCorrupt(f"expected text for each entry of {METADATA}, found other types; save it again with safetensors")
    return metadata


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refused where it names a key twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


DECODER: Final = json.JSONDecoder(object_pairs_hook=unique)


def tensor_info(name: str, entry: Any) -> TensorInfo:
    """One checked entry of the header."""
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        count = DTYPES[dtype].itemsize
        for length in shape:
            count *= length
        numbers = (*shape, start, end)
        sound = all(type(number) is int and 0 <= number < 2**63 for number in numbers) and end - start == count
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise FileCorrupt(f"tensor {name[:80]!r}: expected a known dtype, a shape and a matching span of bytes, found {str(entry)[:120]}")
    return TensorInfo(dtype, shape, start, end)
