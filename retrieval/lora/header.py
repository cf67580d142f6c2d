"""The header of a safetensors file, and single tensors, read without mapping the file into memory.

Format: https://github.com/huggingface/safetensors#format. 8 bytes little-endian N, N bytes of JSON, then the data.
"""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, located
from loradex.retrieval.lora.first_bytes import DOWNLOAD, FIRST_BYTES, describe_size, refuse_other_file
from loradex.retrieval.lora.layout import DTYPES, Layout, TensorInfo, parse_header_json
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.lora.regular_file import is_regular_file, open_regular_file

MAX_HEADER_BYTES: Final = 100_000_000  # as in safetensors
PREFIX_BYTES: Final = 9  # the length of the header and its first letter
FileStamp = tuple[int, int, int]  # inode, size, time of change (ns)


@dataclass(frozen=True, slots=True)
class Header:
    """The header of one file, which reads single tensors of it.

    Attributes:
        size: of the whole file, in bytes.
        data_start: the byte at which the data begin.
        stamp: identifies the file as it was, to notice that another has taken its place.
    """

    path: Path
    size: int
    metadata: dict[str, str]
    layout: Layout
    data_start: int
    stamp: FileStamp

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        """The tensors by name."""
        return self.layout.tensors

    @property
    def display_name(self) -> str:
        """The file as error messages name it."""
        return str(self.path)

    @classmethod
    def read(cls, path: Path) -> "Header":
        """Read and check the header of a file.

        Raises:
            FileMissing: there is no regular file, or it cannot be opened.
            FileUnsafe: the file is a pickle or another archive.
            FileCorrupt: the header contradicts itself or the size of the file.
            FileUnsupported: it lists more tensors than any LoRA has.
        """
        with open_regular_file(path) as file:
            stamp = stamp_of(file)
            size = stamp[1]
            prefix = file.read(FIRST_BYTES)
            with located(path):
                data_start = find_data_start(prefix, size)
            file.seek(0)  # a second copy of a long header is spared
            raw = file.read(data_start)
        with located(path):
            metadata, layout = parse_header(raw, size)
        return cls(path, size, metadata, layout, data_start, stamp)

    def read_sibling(self, name: str, max_bytes: int) -> bytes | None:
        """Read the first bytes of another file in the same folder; None if there is none.

        Raises:
            FileMissing: it cannot be read.
        """
        path = self.path.with_name(name)
        if not is_regular_file(path):
            return None
        with open_regular_file(path) as file:
            return file.read(max_bytes)

    def load(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Read the named tensors, and no other byte of the file.

        Raises:
            FileCorrupt: the file changed since the header was read.
            FileMissing: it no longer exists, or cannot be read.
        """
        ordered = sorted(names, key=lambda name: self.tensors[name].start)
        with self.open_file() as file:
            return {name: self._read(file, name, 0, self.tensors[name].shape) for name in ordered}

    def row_blocks(self, name: str, rows: int) -> Iterator[Tensor]:
        """Read a tensor as a matrix (out, everything else), ``rows`` rows at a time.

        Raises:
            FileCorrupt: the file changed since the header was read.
            FileMissing: it no longer exists, or cannot be read.
        """
        info = self.tensors[name]
        height, width = info.shape[0], math.prod(info.shape[1:])
        with self.open_file() as file:
            for first in range(0, height, rows):
                yield self._read(file, name, first * width, (min(rows, height - first), width))

    def _read(self, file: FileIO, name: str, offset: int, shape: tuple[int, ...]) -> Tensor:
        """Read the part of a tensor that begins ``offset`` numbers after its first."""
        info = self.tensors[name]
        dtype = DTYPES[info.dtype]
        expected = math.prod(shape) * dtype.itemsize
        file.seek(self.data_start + info.start + offset * dtype.itemsize)
        raw = bytearray(file.read(expected))
        if len(raw) != expected:
            raise FileCorrupt(
                f"{self.path}: tensor {printable(name)}: expected {expected} bytes, found {len(raw)}; the file changed while it was read"
            )
        return tensor_from_bytes(raw, dtype, shape)

    @contextmanager
    def open_file(self) -> Iterator[FileIO]:
        """Open the file for unbuffered reading.

        Raises:
            FileCorrupt: it is not the one whose header was read.
            FileMissing: it no longer exists, or cannot be read.
        """
        with open_regular_file(self.path) as file:
            if stamp_of(file) != self.stamp:
                raise FileCorrupt(
                    f"{self.path}: expected the file whose header was read, found another; it changed while it was read, so read it again"
                )
            yield file


def stamp_of(file: FileIO) -> FileStamp:
    """The stamp of an open file."""
    status = os.fstat(file.fileno())
    return status.st_ino, status.st_size, status.st_mtime_ns


def find_data_start(prefix: bytes, size: int) -> int:
    """Find the byte at which the data of a file begin.

    Args:
        prefix: its first bytes, at least ``PREFIX_BYTES`` of them, or all if it has fewer; of other kinds of files more
            is told from ``FIRST_BYTES``.
        size: of the whole file, in bytes.

    Raises:
        FileUnsafe: the file is a pickle or another archive.
        FileCorrupt: it is another kind of file, too small, or its header is too long.
    """
    length = int.from_bytes(prefix[:8], "little")
    begins_as_header = prefix[4:9] == b"\0\0\0\0{"  # the length 640 looks like the magic number of a pickle
    if not begins_as_header:
        refuse_other_file(prefix)
    elif size - 8 < length <= MAX_HEADER_BYTES:
        raise FileCorrupt(f"header: {describe_size(length, size - 8)}")
    if len(prefix) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        limit = f"at most {MAX_HEADER_BYTES // 10**6} MB and the file's {size} bytes"
        raise FileCorrupt(f"no safetensors file: expected a header of {limit}, found a length of {length}; {DOWNLOAD}")
    return 8 + length


def parse_header(raw: bytes, size: int) -> tuple[dict[str, str], Layout]:
    """Parse metadata and layout of a file of ``size`` bytes from ``raw``, all its bytes before the data.

    Raises:
        FileCorrupt: the header contradicts itself or the size of the file.
        FileUnsupported: it lists more tensors than any LoRA has.
    """
    metadata, layout = parse_header_json(memoryview(raw)[8:])
    if len(raw) + layout.size != size:
        raise FileCorrupt(describe_size(len(raw) + layout.size, size))
    return metadata, layout


def tensor_from_bytes(raw: bytearray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """A tensor that shares the memory of its bytes."""
    return torch.frombuffer(raw, dtype=dtype).reshape(shape) if raw else torch.empty(shape)
