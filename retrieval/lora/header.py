"""The header of a safetensors file, and the bytes of single tensors, read without mapping the file.

Format: https://github.com/huggingface/safetensors#format. 8 bytes little-endian N, N bytes of JSON, then the data.
"""

import math
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileMissing, FileUnsafe, located
from loradex.retrieval.lora.layout import DTYPES, Layout, TensorInfo, parse_header
from loradex.retrieval.lora.problems import shown

LARGEST_HEADER: Final = 16 * 2**20  # bytes
FIRST: Final = 9  # bytes, which tell how long the header is, or what else the file is
Stamp = tuple[int, int, int]
FOREIGN: Final = {
    b"PK\x03\x04": "a zip archive, as torch.save writes it",
    **{bytes([0x80, i]): "a pickle" for i in range(2, 6)},
    b"\x1f\x8b": "gzip data",
}


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of one file says.

    Attributes:
        start: the byte where the data begin.
        stamp: which file it was, and of when; another one that takes its place is noticed.
    """

    path: Path
    size: int
    metadata: dict[str, str]
    layout: Layout
    start: int
    stamp: Stamp

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """The tensors by name."""
        return self.layout.tensors

    @property
    def where(self) -> str:
        """The file as messages name it."""
        return str(self.path)

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
            stamp = stamp_of(file)
            size = stamp[1]
            first = file.read(FIRST)
            with located(path):
                start = end_of_header(first, size)
            raw = (first + file.read(max(start - len(first), 0)))[:start]
        with located(path):
            metadata, layout = parse_head(raw, size)
        return cls(path, size, metadata, layout, start, stamp)

    def beside(self, name: str, most: int) -> bytes | None:
        """The first ``most`` bytes of another file in the same folder, or None where it is missing.

        Raises:
            FileMissing: it cannot be read.
        """
        path = self.path.with_name(name)
        if not path.is_file():
            return None
        with open_regular(path) as file:
            return file.read(most)

    def load(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Read the named tensors, and no other byte of the file.

        Raises:
            FileCorrupt: the file changed since the header was read.
            FileMissing: it is gone, or cannot be read.
        """
        wanted = sorted(names, key=lambda name: self.tensors[name].start)
        with self.opened() as file:
            return {
                name: self._read(file, name, 0, info.shape)
                for name, info in ((name, self.tensors[name]) for name in wanted)
            }

    def blocks(self, name: str, rows: int) -> Iterator[Tensor]:
        """A tensor as a matrix (out, everything else), ``rows`` rows at a time.

        Raises:
            FileCorrupt: the file changed since the header was read.
            FileMissing: it is gone, or cannot be read.
        """
        info = self.tensors[name]
        height, width = info.shape[0], math.prod(info.shape[1:])
        with self.opened() as file:
            for first in range(0, height, rows):
                yield self._read(file, name, first * width, (min(rows, height - first), width))

    def _read(self, file: FileIO, name: str, first: int, shape: tuple[int, ...]) -> Tensor:
        """Part of a tensor, from its number ``first`` on."""
        info = self.tensors[name]
        dtype = DTYPES[info.dtype]
        expected = math.prod(shape) * dtype.itemsize
        file.seek(self.start + info.start + first * dtype.itemsize)
        raw = bytearray(file.read(expected))
        if len(raw) != expected:
            raise FileCorrupt(
                f"{self.path}: tensor {shown(name)}: expected {expected} bytes, found {len(raw)}; the file changed while it was read"
            )
        return tensor_of(raw, dtype, shape)

    @contextmanager
    def opened(self) -> Iterator[FileIO]:
        """The file, open for unbuffered reading.

        Raises:
            FileCorrupt: it is not the one whose header was read.
            FileMissing: it is gone, or cannot be read.
        """
        with open_regular(self.path) as file:
            if stamp_of(file) != self.stamp:
                raise FileCorrupt(
                    f"{self.path}: expected the file whose header was read, found another; it changed while it was read, so read it again"
                )
            yield file


def stamp_of(file: FileIO) -> Stamp:
    """Which file it is: its number, size and time of change."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def open_regular(path: Path) -> Iterator[FileIO]:
    """Open a regular file for unbuffered reading, and nothing that could block or have no end.

    Raises:
        FileMissing: it is not there, not a regular file, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileMissing(f"{path}: cannot be read: {reason}; check the path") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileMissing(f"{path}: expected a regular file, found a folder or a device; name a .safetensors file")
    with FileIO(descriptor) as file:
        try:
            yield file
        except OSError as error:
            raise FileMissing(
                f"{path}: cannot be read: {error.strerror}; check the disk, or copy the file again"
            ) from None


def end_of_header(first: bytes, size: int) -> int:
    """Where the data of a file begin, by its ``FIRST`` bytes, or all where it has fewer, and its size.

    Raises:
        FileUnsafe: it begins as a pickle or another archive.
        FileCorrupt: it is too small, or its header is too long.
    """
    if first[8:] != b"{":  # a header of 640 bytes begins as a pickle does
        refuse_foreign(first)
    length = int.from_bytes(first[:8], "little")
    if len(first) < 8 or length > min(size - 8, LARGEST_HEADER):
        limit = f"at most {LARGEST_HEADER >> 20} MiB and the file's {size} bytes"
        raise FileCorrupt(
            f"no safetensors file: expected a header of {limit}, found a length of {length}; download it again"
        )
    return 8 + length


def refuse_foreign(first: bytes) -> None:
    """Name the containers that people mistake for safetensors."""
    for magic, what in FOREIGN.items():
        if first.startswith(magic):
            raise FileUnsafe(
                f"expected safetensors, found {what}, which was not opened as it could run code; convert it to .safetensors first"
            )


def parse_head(head: bytes, size: int) -> tuple[dict[str, str], Layout]:
    """Metadata and layout of a file of ``size`` bytes; ``head`` is all of it before the data.

    Raises:
        FileCorrupt: the header lies about itself or about the data.
        FileUnsupported: it names more tensors than any LoRA has.
    """
    metadata, layout = parse_header(head[8:])
    if len(head) + layout.size != size:
        raise FileCorrupt(
            f"expected {len(head) + layout.size} bytes, found {size}; the file is cut short or has something appended"
        )
    return metadata, layout


def tensor_of(raw: bytearray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """A tensor over its bytes."""
    return torch.frombuffer(raw, dtype=dtype).reshape(shape) if raw else torch.empty(shape)
