"""Some layers of a LoRA on a hub as a smaller LoRA file, from its header and the bytes of those layers.

Format: https://github.com/huggingface/safetensors#format. 8 bytes little-endian N, N bytes of JSON, then the data.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final

from retrieval.errors import FileCorrupt, FileUnsupported, located
from retrieval.lora.header import LARGEST_HEADER
from retrieval.lora.layers import read_layers
from retrieval.lora.layout import METADATA, Layout, TensorInfo, parse_header
from retrieval.lora.positional import targets_of
from scripts.model_j.remote import RemoteFile

LONGEST_GUESS: Final = 2**20  # bytes of a header that is read before its length is known


class SliceReader:
    """Reads layers of many files that were written alike: the first read of a file is as long as the last file's header was."""

    def __init__(self, layers: Sequence[str]) -> None:
        """Read ``layers``, by their names in diffusers."""
        self.layers = tuple(layers)
        self._first = 8  # bytes

    def read(self, remote: RemoteFile, more: Iterable[str] = ()) -> bytes:
        """A whole safetensors file that holds the layers, and ``more`` ones, with the names, precision and metadata that they have in ``remote``.

        Raises:
            FileCorrupt: the header lies about itself or about the data.
            FileUnsupported: the file lacks a layer, or names its layers so that some of them cannot stand alone.
            FetchError: the server does not send what is asked.
        """
        head = self._head(remote)
        start = len(head)
        layers = [*dict.fromkeys((*self.layers, *more))]
        with located(remote.name):
            metadata, layout = parse_header(head[8:])
            if start + layout.size != remote.size:
                raise FileCorrupt(f"expected {start + layout.size} bytes, found {remote.size}; the file on the hub is cut short or has something appended")
            names = tensors_of(layers, layout, metadata)
        data = dict.fromkeys(names, b"")
        for span in spans(layout.tensors[name] for name in names):
            block = remote.read(start + span[0], start + span[1])
            for name in names:
                info = layout.tensors[name]
                if span[0] <= info.start < info.end <= span[1]:
                    data[name] = block[info.start - span[0] : info.end - span[0]]
        with located(remote.name):
            return serialised({name: (layout.tensors[name], data[name]) for name in names}, metadata, layers)

    def _head(self, remote: RemoteFile) -> bytes:
        """All bytes before the data."""
        head = remote.read(0, min(max(self._first, 8), remote.size)) if remote.size >= 8 else b""
        length = int.from_bytes(head[:8], "little")
        if remote.size < 8 or length > min(remote.size - 8, LARGEST_HEADER):
            limit = f"at most {LARGEST_HEADER >> 20} MiB and the file's {remote.size} bytes"
            raise FileCorrupt(f"{remote.name}: no safetensors file: expected a header of {limit}, found a length of {length}; tell who keeps it")
        if len(head) < 8 + length:
            head += remote.read(len(head), 8 + length)
        self._first = 8 + min(length, LONGEST_GUESS)
        return head[: 8 + length]


def tensors_of(layers: Sequence[str], layout: Layout, metadata: dict[str, str]) -> list[str]:
    """The tensors that some layers are made of, in the order of the file.

    Raises:
        FileUnsupported: the file lacks a layer.
    """
    found = read_layers(layout, targets_of(metadata)).layers
    missing = [layer for layer in layers if layer not in found]
    if missing:
        raise FileUnsupported(f"expected layer {missing[0]}, found {len(found)} others, the first {next(iter(found))}; name layers that the files have")
    names = {name for layer in layers for name in found[layer].parts.values()}
    return sorted(names, key=lambda name: layout.tensors[name].start)


def spans(tensors: Iterable[TensorInfo]) -> list[tuple[int, int]]:
    """The spans of tensors in the data, in order, adjacent ones as one; tensors without elements have none."""
    merged: list[tuple[int, int]] = []
    for info in sorted((info for info in tensors if info.end > info.start), key=lambda info: info.start):
        if merged and merged[-1][1] == info.start:
            merged[-1] = merged[-1][0], info.end
        else:
            merged.append((info.start, info.end))
    return merged


def serialised(tensors: dict[str, tuple[TensorInfo, bytes]], metadata: dict[str, str], layers: Sequence[str]) -> bytes:
    """A safetensors file of these tensors, checked to hold ``layers`` when it is read.

    Raises:
        FileUnsupported: it does not, as in formats that name layers by their position or add one to the other.
    """
    entries: dict[str, object] = {METADATA: metadata} if metadata else {}
    end = 0
    for name, (info, raw) in tensors.items():
        entries[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [end, end + len(raw)]}
        end += len(raw)
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    alone = read_layers(parse_header(header)[1], targets_of(metadata)).layers
    strange = set(layers) - alone.keys()
    if strange:
        raise FileUnsupported(f"expected names that hold without the other layers, found none for {min(strange)}; fetch whole files, without --layers")
    return len(header).to_bytes(8, "little") + header + b"".join(raw for _, raw in tensors.values())
