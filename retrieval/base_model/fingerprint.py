"""The fingerprint of a base model: tells whether it has changed, without reading all of it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from loradex.retrieval.base_model.json_file import MAX_CONFIG_BYTES
from loradex.retrieval.base_model.part import Part
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.regular_file import open_regular_file

SAMPLED_TENSORS: Final = 8  # of a part in each of its files: fine-tunes of one base model have equal headers
SAMPLED_BYTES: Final = 256  # of each


def fingerprint_of(parts: Mapping[str, Part]) -> str:
    """A digest of the tensors' names, types and shapes, of the configurations, and of a few weights of each part.

    Raises:
        FileError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in sorted(parts):
        part = parts[name]
        digest.update(f"{name} {part.prefix} {part.layout}\n".encode())
        if part.config is not None:
            digest.update(read_start(part.config))
        for file in part.files:
            digest.update(sample(Header.read(file), part.prefix))
    return digest.hexdigest()[:20]


def read_start(path: Path) -> bytes:
    """A configuration, up to the bound of one."""
    with open_regular_file(path) as file:
        return file.read(MAX_CONFIG_BYTES)


def sample(header: Header, prefix: str) -> bytes:
    """The digest of the tensors behind a prefix, as the header lists them, and of a few numbers of some of them."""
    tensors = sorted((name, info) for name, info in header.tensors.items() if name.startswith(prefix))
    digest = hashlib.sha256(f"{header.size}\n".encode())
    for name, info in tensors:
        digest.update(f"{name} {info.dtype} {info.shape}\n".encode())
    matrices = [info for _, info in tensors if len(info.shape) > 1] or [info for _, info in tensors]
    with header.open_file() as file:
        for info in matrices[:: max(1, len(matrices) // SAMPLED_TENSORS)][:SAMPLED_TENSORS]:
            file.seek(header.data_start + info.start)
            digest.update(file.read(min(SAMPLED_BYTES, info.end - info.start)))
    return digest.digest()
