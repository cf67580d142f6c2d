"""The layout of a safetensors file: dtype, shape and byte range of each tensor, as the JSON of its header lists them.

Format: https://github.com/huggingface/safetensors#format. The layers of the model are found from it in ``layers``.
"""

import json
import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch

from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora.long_header import split_long_header

MAX_TENSORS: Final = 20_000
CACHED_LAYOUTS: Final = 64  # the files of a folder have few different layouts
MAX_CACHED_LENGTH: Final = 2**20  # characters of the JSON
MAX_PARSED_BYTES: Final = 2**20  # of a header that is parsed at once
METADATA: Final = "__metadata__"
METADATA_START: Final = re.compile(r'\{[ \t\r\n]*"__metadata__"[ \t\r\n]*:[ \t\r\n]*')
AFTER_METADATA: Final = re.compile(r"[ \t\r\n]*(,(?![ \t\r\n]*\})|(?=\}))")  # a comma before another entry, or the end
WHITESPACE: Final = " \t\r\n"
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
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
}
# the other dtypes of safetensors, in bits: complex numbers, and numbers that do not fill whole bytes
UNREADABLE_DTYPES: Final = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}
BITS: Final = {name: 8 * dtype.itemsize for name, dtype in DTYPES.items()} | UNREADABLE_DTYPES
SIZE_LIMIT: Final = 2**64  # safetensors counts the numbers and the bits of a tensor in 64 bits
ENTRY_KEYS: Final = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header describes it; ``start`` and ``end`` count bytes from the beginning of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The tensors of a file, which fill its data without gaps.

    Attributes:
        tensors: by name.
        size: of the data, in bytes.
        metadata: None if they were parsed apart, as they stand first in the header or it is long: so files that differ
            only in them share a layout.
    """

    tensors: dict[str, TensorInfo]
    size: int
    metadata: dict[str, str] | None


def parse_header_json(raw: bytes | memoryview) -> tuple[dict[str, str], Layout]:
    """Parse the JSON of a header into metadata and layout; equal layouts are the same object, from a cache.

    Raises:
        FileCorrupt: the header contradicts itself.
        FileUnsupported: it lists more tensors, or has more metadata, than any LoRA has.
    """
    try:
        metadata, text = split_long_header(memoryview(raw)) if len(raw) > MAX_PARSED_BYTES else split_header(raw)
        layout = (cached_layout if len(text) <= MAX_CACHED_LENGTH else parse_layout)(text)
    except (ValueError, RecursionError) as error:
        raise FileCorrupt(f"the header is not valid JSON: {str(error)[:80]}; download it again") from None
    if metadata is None:
        return layout.metadata or {}, layout
    if layout.metadata is not None:
        raise FileCorrupt(f"expected one {METADATA} in the header, found two; save it again with safetensors")
    return metadata, layout


def split_header(raw: bytes | memoryview) -> tuple[dict[str, str] | None, str]:
    """Split the JSON of a header into the metadata, if they stand first, and the rest.

    Raises:
        ValueError, RecursionError: it is not JSON.
        FileCorrupt: the metadata do not map text to text.
    """
    text = str(raw, "utf-8").rstrip(WHITESPACE)
    start = METADATA_START.match(text)
    if start is None:
        return None, text
    metadata, end = DECODER.raw_decode(text, start.end())
    separator = AFTER_METADATA.match(text, end)
    if separator is None:
        raise ValueError(f"expected a comma behind {METADATA}")
    return check_metadata(metadata), "{" + text[separator.end() :]


def parse_layout(text: str) -> Layout:
    """Parse the JSON of a header, from which metadata at its beginning were taken out.

    Raises:
        ValueError, RecursionError: it is not JSON.
        FileCorrupt, FileUnsupported: as ``parse_header_json``.
    """
    entry_keys = 0 if METADATA in text else text.count('":')  # a tensor has four: its name and three members
    if text.count('"data_offsets"') > MAX_TENSORS or entry_keys > 4 * MAX_TENSORS:
        raise FileUnsupported(f"expected a LoRA of up to {MAX_TENSORS} tensors, found more; choose another file")
    entries = (UNSIGNED_DECODER if "-0" in text else DECODER).decode(text)
    if not isinstance(entries, dict):
        raise FileCorrupt(f"expected a JSON object as header, found {type(entries).__name__}; download it again")
    if len(entries) > MAX_TENSORS:
        raise FileUnsupported(
            f"expected a LoRA of up to {MAX_TENSORS} tensors, found {len(entries)}; choose another file"
        )
    metadata = check_metadata(entries.pop(METADATA)) if METADATA in entries else None
    refuse_lone_surrogates(entries)
    tensors = {name: parse_entry(name, entry) for name, entry in entries.items()}
    end = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != end:
            raise FileCorrupt(
                f"tensor {name[:80]!r}: expected to begin at byte {end} of the data, found {info.start}; download it again"
            )
        end = info.end
    return Layout(tensors, end, metadata)


cached_layout = lru_cache(CACHED_LAYOUTS)(parse_layout)


def check_metadata(metadata: Any) -> dict[str, str]:
    """Refuse metadata that do not map text to text; null stands for none, as in safetensors."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileCorrupt(
            f"expected text for each entry of {METADATA}, found other types; save it again with safetensors"
        )
    refuse_lone_surrogates((*metadata, *metadata.values()))
    return metadata


def refuse_lone_surrogates(texts: Iterable[str]) -> None:
    """Refuse texts with half of a surrogate pair: JSON can hold one, but UTF-8 cannot encode it."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise FileCorrupt(
            f"expected Unicode text, found half of a surrogate pair: {error.object[error.start : error.end]!a}; save it again"
        ) from None


def object_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError if it holds a key twice."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key stands twice")
    return entries


def parse_unsigned(digits: str) -> int:
    """Parse a number that has no sign: safetensors refuses -0, which equals 0 in Python."""
    if digits.startswith("-"):
        raise ValueError(f"expected numbers from 0, found {digits[:40]}")
    return int(digits)


DECODER: Final = json.JSONDecoder(object_pairs_hook=object_of_unique_keys)
UNSIGNED_DECODER: Final = json.JSONDecoder(object_pairs_hook=object_of_unique_keys, parse_int=parse_unsigned)  # slower


def parse_entry(name: str, entry: Any) -> TensorInfo:
    """Check one entry of the header."""
    if isinstance(entry, dict) and entry.keys() == ENTRY_KEYS:
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        valid = (
            isinstance(dtype, str)
            and dtype in BITS
            and are_unsigned(shape)
            and are_unsigned(offsets)
            and len(offsets) == 2
        )
        if valid and count_bits(shape, BITS[dtype]) == 8 * (offsets[1] - offsets[0]):
            return TensorInfo(dtype, tuple(shape), *offsets)
    raise FileCorrupt(
        f"tensor {name[:80]!r}: expected a known dtype, a shape and a matching span of bytes, found {reprlib.repr(entry)[:120]}"
    )


def are_unsigned(value: Any) -> bool:
    """Whether ``value`` is a list of integers from 0 that fit into a signed 64-bit integer."""
    if not isinstance(value, list):
        return False
    for number in value:  # noqa: SIM110 - all() takes twice as long, and a header is mostly such lists
        if type(number) is not int or not 0 <= number < 2**63:
            return False
    return True


def count_bits(shape: Iterable[int], bits: int) -> int | None:
    """Count the bits of a tensor; None if a product of its sides reaches ``SIZE_LIMIT``, which safetensors refuses."""
    count = 1
    for length in shape:
        count *= length
        if count >= SIZE_LIMIT:
            return None
    return bits * count if bits * count < SIZE_LIMIT else None
