"""What a safetensors header says of its tensors. Format: https://github.com/huggingface/safetensors#format."""

import json
import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch

from loradex.retrieval.errors import FileCorrupt, FileUnsupported

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
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
}
UNREADABLE: Final = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "C64": 64,
}  # the other types of safetensors, in bits: of no real numbers, or of no whole bytes
BITS: Final = {name: 8 * dtype.itemsize for name, dtype in DTYPES.items()} | UNREADABLE
LARGEST: Final = 2**64  # what sizes stay below in safetensors, in numbers and in bits
KEYS: Final = {"dtype", "shape", "data_offsets"}


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
    entries = (SLOW_DECODER if "-0" in text else DECODER).decode(text)
    if not isinstance(entries, dict):
        raise FileCorrupt(f"expected a JSON object as header, found {type(entries).__name__}; download it again")
    if len(entries) > MOST_TENSORS:
        raise FileUnsupported(
            f"expected a LoRA of up to {MOST_TENSORS} tensors, found {len(entries)}; choose another file"
        )
    metadata = check_metadata(entries.pop(METADATA)) if METADATA in entries else None
    refuse_halves(entries)
    tensors = {name: tensor_info(name, entry) for name, entry in entries.items()}
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
    """Metadata that map text to text."""
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileCorrupt(
            f"expected text for each entry of {METADATA}, found other types; save it again with safetensors"
        )
    refuse_halves((*metadata, *metadata.values()))
    return metadata


def refuse_halves(texts: Iterable[str]) -> None:
    """Refuse texts with half of a surrogate pair, which JSON can write but no file or terminal can hold."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise FileCorrupt(
            f"expected Unicode text, found half of a surrogate pair: {error.object[error.start : error.end]!a}; save it again"
        ) from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refused where it names a key twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def natural(digits: str) -> int:
    """A number from 0; Python takes -0 for one, safetensors does not."""
    if digits.startswith("-"):
        raise ValueError(f"expected numbers from 0, found {digits[:40]}")
    return int(digits)


DECODER: Final = json.JSONDecoder(object_pairs_hook=unique)
SLOW_DECODER: Final = json.JSONDecoder(object_pairs_hook=unique, parse_int=natural)


def tensor_info(name: str, entry: Any) -> TensorInfo:
    """One checked entry of the header."""
    if isinstance(entry, dict) and entry.keys() == KEYS:
        dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
        sound = (
            isinstance(dtype, str) and dtype in BITS and are_naturals(shape) and are_naturals(span) and len(span) == 2
        )
        if sound and bits_of(shape, BITS[dtype]) == 8 * (span[1] - span[0]):
            return TensorInfo(dtype, tuple(shape), *span)
    raise FileCorrupt(
        f"tensor {name[:80]!r}: expected a known dtype, a shape and a matching span of bytes, found {reprlib.repr(entry)[:120]}"
    )


def are_naturals(value: Any) -> bool:
    """Whether it is a list of numbers from 0 that fit into 64 bits with a sign."""
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**63 for number in value)


def bits_of(shape: Iterable[int], bits: int) -> int | None:
    """How many bits a tensor takes, or None where safetensors' own count would overflow on the way."""
    count = 1
    for length in shape:
        count *= length
        if count >= LARGEST:
            return None
    return bits * count if bits * count < LARGEST else None
