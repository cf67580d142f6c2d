"""Self-describing checkpoints: one safetensors file whose header holds all settings needed to use it."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from loradex.retrieval.errors import CheckpointError

METADATA: Final = "__metadata__"


def save_checkpoint(path: Path, format_name: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write ``tensors``, with the name of the format and the ``settings`` (as JSON) in the header.

    Raises:
        CheckpointError: the file cannot be written.
    """
    save_tensors(path, tensors, {"format": format_name, "settings": json.dumps(settings)})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file under a temporary name and move it into place once it is complete.

    Equal tensors and metadata make equal files, byte by byte.

    Raises:
        CheckpointError: the file cannot be written; nothing is left of it then.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, dict(metadata))
        sort_metadata(temporary)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise CheckpointError(f"{path}: expected a place to write to, found: {error}; name another folder") from None


def sort_metadata(path: Path) -> None:
    """Put the metadata of a safetensors file in order, and the file on the disk: safetensors writes them in any order.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if METADATA in header:
            header[METADATA] = dict(sorted(header[METADATA].items()))
            text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
            assert len(text) == length, "only the order changes"
            file.seek(8)
            file.write(text)
        file.flush()
        os.fsync(file.fileno())


def load_checkpoint(path: Path, format_name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings and the tensors of a checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged or of another format than ``format_name``.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint of format {format_name}, found none: {error}; train one or restore the file"
        ) from None
    if metadata.get("format") != format_name:
        raise CheckpointError(
            f"{path}: expected format {format_name}, found {metadata.get('format')!r}; use the Loradex that wrote it, or train it again"
        )
    return json.loads(metadata["settings"]), tensors
