"""The header of a remote safetensors file, and single tensors, read by byte ranges."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from torch import Tensor

from loradex.retrieval.errors import FileMissing, FileUnsupported, located
from loradex.retrieval.lora.first_bytes import FIRST_BYTES
from loradex.retrieval.lora.header import PREFIX_BYTES, Header, find_data_start, parse_header, tensor_from_bytes
from loradex.retrieval.lora.layout import DTYPES, Layout
from loradex.retrieval.remote.ranges import RangeReader

MAX_READ_BYTES: Final = 64 * 2**20  # of one read, and so repeated after a fault; a single tensor may be longer
MAX_DATA_BYTES: Final = 2 * 2**30  # of the data of one file


@dataclass(frozen=True, slots=True)
class RemoteHeader(Header):
    """The header of a remote file, which fetches single tensors of it on first use and keeps them.

    Attributes:
        remote: the file.
        siblings: other files of the same folder that may be read, by name.
        fetched: the bytes of tensors by name.
    """

    remote: RangeReader
    siblings: Mapping[str, RangeReader] = field(default_factory=dict)
    fetched: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def fetch(
        cls, remote: RangeReader, siblings: Mapping[str, RangeReader] | None = None, first: int = PREFIX_BYTES
    ) -> "RemoteHeader":
        """Fetch and check the header of a file.

        Args:
            remote: the file.
            siblings: see the attributes.
            first: bytes of the first read; a second one is spared if they hold the whole header.

        Raises:
            FileUnsafe: the file is a pickle or another archive.
            FileCorrupt: the header contradicts itself or the size of the file.
            FileUnsupported: it lists more tensors than any LoRA has.
            FetchError: the server does not send the bytes.
        """
        raw = remote.read(0, min(first, remote.size)) if remote.size else b""
        with located(remote.name):
            data_start = find_data_start(raw[:FIRST_BYTES], remote.size)
        if len(raw) < data_start:
            raw += remote.read(len(raw), data_start)
        with located(remote.name):
            metadata, layout = parse_header(raw[:data_start], remote.size)
        stamp = (0, remote.size, 0)
        return cls(Path(remote.name), remote.size, metadata, layout, data_start, stamp, remote, siblings or {})

    @property
    def display_name(self) -> str:
        """The file as error messages name it."""
        return self.remote.name

    @property
    def received(self) -> int:
        """How many bytes came so far, those of siblings included."""
        return sum(file.received for file in (self.remote, *self.siblings.values()))

    def load(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Fetch the named tensors.

        Raises:
            FileUnsupported: they are larger than ``MAX_DATA_BYTES``.
            FetchError: the server does not send them.
        """
        infos = {name: self.tensors[name] for name in names}
        raw = self.fetch_tensors(infos)
        return {
            name: tensor_from_bytes(bytearray(raw[name]), DTYPES[info.dtype], info.shape)
            for name, info in infos.items()
        }

    def fetch_tensors(self, names: Iterable[str]) -> dict[str, bytes]:
        """Fetch the bytes of the named tensors; adjacent ones come by one read.

        Raises:
            FileUnsupported: they are larger than ``MAX_DATA_BYTES``.
            FetchError: the server does not send them.
        """
        names = list(names)
        missing = [name for name in names if name not in self.fetched]
        missing_bytes = sum(self.tensors[name].end - self.tensors[name].start for name in missing)
        if missing_bytes > MAX_DATA_BYTES:
            raise FileUnsupported(
                f"{self.display_name}: expected at most {MAX_DATA_BYTES} bytes to read, found {missing_bytes}; download the file and read it here"
            )
        for run in adjacent_tensors(self.layout, missing):
            start, end = self.tensors[run[0]].start, self.tensors[run[-1]].end
            block = self.remote.read(self.data_start + start, self.data_start + end) if end > start else b""
            for name in run:
                self.fetched[name] = block[self.tensors[name].start - start : self.tensors[name].end - start]
        return {name: self.fetched[name] for name in names}

    def read_sibling(self, name: str, max_bytes: int) -> bytes | None:
        """Fetch the first bytes of a sibling; None if there is none.

        Raises:
            FetchError: the server does not send them.
        """
        sibling = self.siblings.get(name)
        return sibling.read(0, min(sibling.size, max_bytes)) if sibling and sibling.size else None

    def open_file(self) -> NoReturn:
        """Refuse to open the whole file.

        Raises:
            FileMissing: always.
        """
        raise FileMissing(
            f"{self.display_name}: expected a file on this machine, found one on a hub, which is not read whole; download it"
        )


def adjacent_tensors(layout: Layout, names: Iterable[str]) -> list[list[str]]:
    """Sort the names by their place in the file, and group adjacent tensors of up to ``MAX_READ_BYTES`` in all."""
    runs: list[list[str]] = []
    first = last = None
    for name in sorted(names, key=lambda name: (layout.tensors[name].start, layout.tensors[name].end)):
        info = layout.tensors[name]
        if first and last and last.end == info.start and info.end - first.start <= MAX_READ_BYTES:
            runs[-1].append(name)
        else:
            runs.append([name])
            first = info
        last = info
    return runs
