"""Makes smaller LoRA files from some layers of a LoRA on a hub: reads its header and the bytes of those layers.

Format: https://github.com/huggingface/safetensors#format. 8 bytes little-endian N, N bytes of JSON, then the data.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final

from loradex.retrieval.errors import FileUnsupported, located
from loradex.retrieval.lora.header import PREFIX_BYTES
from loradex.retrieval.lora.layer_names.cloneofsimo import target_classes
from loradex.retrieval.lora.layers import parse_layers
from loradex.retrieval.lora.layout import METADATA, Layout, TensorInfo, parse_header_json
from loradex.retrieval.remote.header import RemoteHeader
from loradex.retrieval.remote.ranges import HttpFile

MAX_FIRST_READ: Final = 2**20  # bytes that are read before the length of a header is known


class SliceReader:
    """Reads layers of many similar files: the first read of a file is as long as the last file's header."""

    def __init__(self, layers: Sequence[str]) -> None:
        """``layers`` are names of diffusers."""
        self.layers = tuple(layers)
        self._first_read = PREFIX_BYTES  # bytes

    def read(self, remote: HttpFile, extra_layers: Iterable[str] = ()) -> bytes:
        """A safetensors file with the layers and ``extra_layers``, in the names, precision and metadata of ``remote``.

        Raises:
            FileUnsafe: the file is a pickle or another archive.
            FileCorrupt: the header is invalid or does not match the data.
            FileUnsupported: the file lacks a layer, or its names of layers are not valid without the other layers.
            FetchError: the server does not send what was requested.
        """
        header = RemoteHeader.fetch(remote, first=self._first_read)
        self._first_read = min(header.data_start, MAX_FIRST_READ)
        layers = [*dict.fromkeys((*self.layers, *extra_layers))]
        with located(remote.name):
            names = tensor_names(layers, header.layout, header.metadata)
        data = header.fetch_tensors(names)
        with located(remote.name):
            return serialize({name: (header.tensors[name], data[name]) for name in names}, header.metadata, layers)


def tensor_names(layers: Sequence[str], layout: Layout, metadata: dict[str, str]) -> list[str]:
    """The names of the tensors of some layers, in the order of the file.

    Raises:
        FileUnsupported: the file lacks a layer.
    """
    file_layers = parse_layers(layout, target_classes(metadata)).layers
    missing = [layer for layer in layers if layer not in file_layers]
    if missing:
        raise FileUnsupported(
            f"expected layer {missing[0]}, found {len(file_layers)} others, the first {next(iter(file_layers))}; name layers that the files have"
        )
    names = {name for layer in layers for name in file_layers[layer].parts.values()}
    return sorted(names, key=lambda name: layout.tensors[name].start)


def serialize(tensors: dict[str, tuple[TensorInfo, bytes]], metadata: dict[str, str], layers: Sequence[str]) -> bytes:
    """A safetensors file of these tensors, checked to hold ``layers`` when it is read.

    Raises:
        FileUnsupported: it does not, as in formats that number their layers or add one to another.
    """
    header = make_header(tensors, metadata)
    readable = parse_layers(parse_header_json(header)[1], target_classes(metadata)).layers
    unreadable = set(layers) - readable.keys()
    if unreadable:
        raise FileUnsupported(
            f"expected layer names that are valid without the other layers, found none for {min(unreadable)}; fetch whole files, without --layers"
        )
    return join_file(header, tensors)


def make_header(tensors: dict[str, tuple[TensorInfo, bytes]], metadata: dict[str, str]) -> bytes:
    """The header of a file of these tensors, padded to a multiple of 8 bytes."""
    entries: dict[str, object] = {METADATA: metadata} if metadata else {}
    end = 0
    for name, (info, data) in tensors.items():
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)


def join_file(header: bytes, tensors: dict[str, tuple[TensorInfo, bytes]]) -> bytes:
    """Join a header and its tensors to a file."""
    return len(header).to_bytes(8, "little") + header + b"".join(data for _, data in tensors.values())
