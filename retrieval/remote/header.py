"""The header of a safetensors file on a hub, and the bytes of single tensors, read by ranges."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, Protocol

from torch import Tensor

from loradex.retrieval.errors import FileMissing, FileUnsupported, located
from loradex.retrieval.lora.header import FIRST, Header, end_of_header, parse_head, tensor_of
from loradex.retrieval.lora.layout import DTYPES, Layout

LONGEST_READ: Final = 64 * 2**20  # bytes that are read at once and, after a fault, again; single tensors may be longer
MOST_READ: Final = 2 * 2**30  # bytes of the data of one file


class Ranges(Protocol):
    """A file that is read by ranges: what messages call it, its bytes, and how many of them came so far."""

    name: str
    size: int
    received: int

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``.

        Raises:
            FetchError: they are not sent.
        """
        ...


@dataclass(frozen=True, slots=True)
class RemoteHeader(Header):
    """What the header of a file on a hub says; tensors are fetched when they are first asked for, and kept.

    Attributes:
        remote: the file.
        siblings: files of the same folder that may be asked for, by name.
        kept: the bytes of tensors by name.
    """

    remote: Ranges
    siblings: Mapping[str, Ranges] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def fetch(cls, remote: Ranges, siblings: Mapping[str, Ranges] | None = None, first: int = FIRST) -> "RemoteHeader":
        """Fetch and check the header of a file; ``first`` bytes at first, which spares a read where they are enough.

        Raises:
            FileUnsafe: it begins as a pickle or another archive.
            FileCorrupt: the header lies about itself or about the data.
            FileUnsupported: it names more tensors than any LoRA has.
            FetchError: the server does not send what is asked.
        """
        raw = remote.read(0, min(first, remote.size)) if remote.size else b""
        with located(remote.name):
            start = end_of_header(raw[:FIRST], remote.size)
        if len(raw) < start:
            raw += remote.read(len(raw), start)
        with located(remote.name):
            metadata, layout = parse_head(raw[:start], remote.size)
        return cls(Path(remote.name), remote.size, metadata, layout, start, (0, remote.size, 0), remote, siblings or {})

    @property
    def where(self) -> str:
        """The file as messages name it."""
        return self.remote.name

    @property
    def received(self) -> int:
        """Bytes that came so far, those of siblings too."""
        return sum(file.received for file in (self.remote, *self.siblings.values()))

    def load(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The named tensors.

        Raises:
            FileUnsupported: they are larger than ``MOST_READ``.
            FetchError: the server does not send them.
        """
        infos = {name: self.tensors[name] for name in names}
        raw = self.fetch_tensors(infos)
        return {name: tensor_of(bytearray(raw[name]), DTYPES[info.dtype], info.shape) for name, info in infos.items()}

    def fetch_tensors(self, names: Iterable[str]) -> dict[str, bytes]:
        """The bytes of the named tensors, neighbours by one read.

        Raises:
            FileUnsupported: they are larger than ``MOST_READ``.
            FetchError: the server does not send them.
        """
        wanted = list(names)
        missing = [name for name in wanted if name not in self.kept]
        asked = sum(self.tensors[name].end - self.tensors[name].start for name in missing)
        if asked > MOST_READ:
            raise FileUnsupported(
                f"{self.where}: expected at most {MOST_READ} bytes to read, found {asked}; download the file and read it here"
            )
        for run in runs(self.layout, missing):
            start, end = self.tensors[run[0]].start, self.tensors[run[-1]].end
            block = self.remote.read(self.start + start, self.start + end) if end > start else b""
            self.kept.update(
                {name: block[self.tensors[name].start - start : self.tensors[name].end - start] for name in run}
            )
        return {name: self.kept[name] for name in wanted}

    def beside(self, name: str, most: int) -> bytes | None:
        """The first ``most`` bytes of a sibling, or None where there is none of that name.

        Raises:
            FetchError: the server does not send them.
        """
        sibling = self.siblings.get(name)
        return sibling.read(0, min(sibling.size, most)) if sibling and sibling.size else None

    def opened(self) -> NoReturn:
        """Refuse to read what is not fetched tensor by tensor.

        Raises:
            FileMissing: always.
        """
        raise FileMissing(
            f"{self.where}: expected a file on this machine, found one on a hub, which is not read whole; download it"
        )


def runs(layout: Layout, names: Iterable[str]) -> list[list[str]]:
    """The names in the order of the data, those together that are neighbours there and no longer than ``LONGEST_READ``."""
    made: list[list[str]] = []
    first = last = None
    for name in sorted(names, key=lambda name: (layout.tensors[name].start, layout.tensors[name].end)):
        info = layout.tensors[name]
        if first and last and last.end == info.start and info.end - first.start <= LONGEST_READ:
            made[-1].append(name)
        else:
            made.append([name])
            first = info
        last = info
    return made
