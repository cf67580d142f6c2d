"""Some layers of a LoRA on a hub as a smaller LoRA file, from its header and the bytes of those layers.

Format: https://github.com/huggingface/safetensors#format. 8 bytes little-endian N, N bytes of JSON, then the data.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final

from loradex.retrieval.errors import FileUnsupported, located
from loradex.retrieval.lora.header import FIRST
from loradex.retrieval.lora.layer_names.cloneofsimo import targets_of
from loradex.retrieval.lora.layers import read_layers
from loradex.retrieval.lora.layout import METADATA, Layout, TensorInfo, parse_header
from loradex.retrieval.remote.header import RemoteHeader
from loradex.retrieval.remote.ranges import RemoteFile

LONGEST_GUESS: Final = 2**20  # bytes of a header that is read before its length is known


class SliceReader:
    """Reads layers of many files that were written alike: the first read of a file is as long as the last file's header was."""

    def __init__(self, layers: Sequence[str]) -> None:
        """Read ``layers``, by their names in diffusers."""
        self.layers = tuple(layers)
        self._first = FIRST  # bytes

    def read(self, remote: RemoteFile, more: Iterable[str] = ()) -> bytes:
        """A whole safetensors file that holds the layers, and ``more`` ones, with the names, precision and metadata that they have in ``remote``.

        Raises:
            FileUnsafe: the file is a pickle or another archive.
            FileCorrupt: the header lies about itself or about the data.
            FileUnsupported: the file lacks a layer, or names its layers so that some of them cannot stand alone.
            FetchError: the server does not send what is asked.
        """
        header = RemoteHeader.fetch(remote, first=self._first)
        self._first = min(header.start, LONGEST_GUESS)
        layers = [*dict.fromkeys((*self.layers, *more))]
        with located(remote.name):
            names = tensors_of(layers, header.layout, header.metadata)
        data = header.fetch_tensors(names)
        with located(remote.name):
            return serialised({name: (header.tensors[name], data[name]) for name in names}, header.metadata, layers)


def tensors_of(layers: Sequence[str], layout: Layout, metadata: dict[str, str]) -> list[str]:
    """The tensors that some layers are made of, in the order of the file.

    Raises:
        FileUnsupported: the file lacks a layer.
    """
    found = read_layers(layout, targets_of(metadata)).layers
    missing = [layer for layer in layers if layer not in found]
    if missing:
        raise FileUnsupported(
            f"expected layer {missing[0]}, found {len(found)} others, the first {next(iter(found))}; name layers that the files have"
        )
    names = {name for layer in layers for name in found[layer].parts.values()}
    return sorted(names, key=lambda name: layout.tensors[name].start)


def serialised(tensors: dict[str, tuple[TensorInfo, bytes]], metadata: dict[str, str], layers: Sequence[str]) -> bytes:
    """A safetensors file of these tensors, checked to hold ``layers`` when it is read.

    Raises:
        FileUnsupported: it does not, as in formats that name layers by their position or add one to the other.
    """
    header = header_of(tensors, metadata)
    alone = read_layers(parse_header(header)[1], targets_of(metadata)).layers
    strange = set(layers) - alone.keys()
    if strange:
        raise FileUnsupported(
            f"expected names that hold without the other layers, found none for {min(strange)}; fetch whole files, without --layers"
        )
    return whole_file(header, tensors)


def header_of(tensors: dict[str, tuple[TensorInfo, bytes]], metadata: dict[str, str]) -> bytes:
    """The header of a file of these tensors."""
    entries: dict[str, object] = {METADATA: metadata} if metadata else {}
    end = 0
    for name, (info, raw) in tensors.items():
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [end, end + len(raw)]}
        end += len(raw)
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)


def whole_file(header: bytes, tensors: dict[str, tuple[TensorInfo, bytes]]) -> bytes:
    """The file of a header and its tensors."""
    return len(header).to_bytes(8, "little") + header + b"".join(raw for _, raw in tensors.values())
