"""The header of a safetensors file, and the bytes of single tensors, read without mapping the file.

Format: https://github.com/huggingface/safetensors#format. 8 bytes little-endian N, N bytes of JSON, then the data.
"""

import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from retrieval.errors import FileCorrupt, FileMissing, FileUnsafe, FileUnsupported

LARGEST_HEADER: Final = 16 * 2**20  # bytes
MOST_TENSORS: Final = 20_000
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
FOREIGN: Final = {b"PK\x03\x04": "a zip archive, as torch.save writes it", **{bytes([0x80, i]): "a pickle" for i in range(2, 6)}, b"\x1f\x8b": "gzip data"}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as the header describes it; ``start`` and ``end`` are bytes from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of one file says."""

    path: Path
    size: int
    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]

    @classmethod
    def read(cls, path: Path) -> "Header":
        """Read and check the header of ``path``.

        Raises:
            FileMissing: there is no regular file, or it cannot be opened.
            FileUnsafe: it begins as a pickle or another archive.
            FileCorrupt: the header lies about itself or about the data.
            FileUnsupported: it names more tensors than any LoRA has.
        """
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(9)
            if first[8:] != b"{":  # a header of 640 bytes begins as a pickle does
                refuse_foreign(path, first)
            length = int.from_bytes(first[:8], "little")
            if len(first) < 8 or length > min(size - 8, LARGEST_HEADER):
                limit = f"at most {LARGEST_HEADER >> 20} MiB and the file's {size} bytes"
                raise FileCorrupt(f"{path}: no safetensors file: expected a header of {limit}, found a length of {length}; download it again")
            raw = (first[8:] + file.read(max(length - 1, 0)))[:length]
        return cls(path, size, *parse(path, raw, size))

    def load(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Read the named tensors, and no other byte of the file.

        Raises:
            FileCorrupt: the file was cut short since the header was read.
        """
        wanted = sorted(names, key=lambda name: self.tensors[name].start)
        loaded = {}
        with open_regular(self.path) as file:
            for name in wanted:
                info = self.tensors[name]
                file.seek(info.start)
                raw = bytearray(file.read(info.end - info.start))
                if len(raw) != info.end - info.start:
                    raise FileCorrupt(
                        f"{self.path}: tensor {name}: expected {info.end - info.start} bytes, found {len(raw)}; the file changed while it was read"
                    )
                loaded[name] = torch.frombuffer(raw, dtype=DTYPES[info.dtype]).reshape(info.shape) if raw else torch.empty(info.shape)
        return loaded


def open_regular(path: Path) -> Any:
    """Open a regular file for unbuffered reading, and nothing that could block or have no end.

    Raises:
        FileMissing: it is not there, not a regular file, or not readable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileMissing(f"{path}: cannot be read: {reason}; check the path") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileMissing(f"{path}: expected a regular file, found a folder or a device; name a .safetensors file")
    return os.fdopen(descriptor, "rb", buffering=0)


def refuse_foreign(path: Path, first: bytes) -> None:
    """Name the containers that people mistake for safetensors."""
    for magic, what in FOREIGN.items():
        if first.startswith(magic):
            raise FileUnsafe(f"{path}: expected safetensors, found {what}, which was not opened as it could run code; convert it to .safetensors first")


def parse(path: Path, raw: bytes, size: int) -> tuple[dict[str, str], dict[str, TensorInfo]]:
    """Metadata and tensors of a header's JSON, with every span checked against the file's size."""
    try:
        entries = json.loads(raw, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise FileCorrupt(f"{path}: the header is not valid JSON: {str(error)[:80]}; download it again") from None
    if not isinstance(entries, dict):
        raise FileCorrupt(f"{path}: expected a JSON object as header, found {type(entries).__name__}; download it again")
    if len(entries) > MOST_TENSORS:
        raise FileUnsupported(f"{path}: expected a LoRA of up to {MOST_TENSORS} tensors, found {len(entries)}; choose another file")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileCorrupt(f"{path}: expected text for each entry of __metadata__, found other types; save it again with safetensors")
    base = 8 + len(raw)
    tensors = {name: tensor_info(path, name, entry, base) for name, entry in entries.items()}
    end = base
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != end:
            raise FileCorrupt(f"{path}: tensor {name[:80]!r}: expected to begin at byte {end}, found {info.start}; download it again")
        end = info.end
    if end != size:
        raise FileCorrupt(f"{path}: expected {end} bytes, found {size}; the file is cut short or has something appended")
    return metadata, tensors


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refused where it names a key twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice")
    return made


def tensor_info(path: Path, name: str, entry: Any, base: int) -> TensorInfo:
    """One checked entry of the header; ``base`` is where the data begin."""
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
        raise FileCorrupt(f"{path}: tensor {name[:80]!r}: expected a known dtype, a shape and a matching span of bytes, found {str(entry)[:120]}")
    return TensorInfo(dtype, shape, base + start, base + end)
