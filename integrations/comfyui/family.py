"""The family of a checkpoint in ComfyUI's folders: the server tells it by the names and shapes of its tensors.

Only the header is read (https://huggingface.co/docs/safetensors, "Format"), and only names and shapes are sent.
"""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import folder_paths

from .connection import Server
from .documents import text_of
from .errors import LoradexError

FOLDERS = ("checkpoints", "diffusion_models", "unet")  # those that loaders of models name
MAX_HEADER_BYTES = 32 * 2**20
MAX_TENSORS = 20_000  # the server's bound
DIFFUSION = "model.diffusion_model."  # before the names of what draws, in a whole checkpoint
UNKNOWN = "unknown"
MAX_KNOWN = 1000

_families: dict[tuple[str, str, int, int], str] = {}  # by server, path, size and time of the file
_lock = threading.Lock()


def family_of(server: Server, folder: str, name: str) -> str:
    """The family of a checkpoint, or ``unknown``: it is no safetensors, or of a family that the server does not know.

    Args:
        server: that is asked.
        folder: ComfyUI's name of the folder: one of ``FOLDERS``.
        name: of the checkpoint, as loaders take it.

    Raises:
        LoradexError: there is no such checkpoint, or the server cannot answer.
    """
    path = folder_paths.get_full_path(folder, name) if folder in FOLDERS else None
    if path is None or not os.path.isfile(path):
        raise LoradexError("FileMissing", f"checkpoint: expected one of {folder}, found no {name[:200]!r}")
    state = os.stat(path)
    key = (server.address, path, state.st_size, state.st_mtime_ns)
    with _lock:
        known = _families.get(key)
    if known is not None:
        return known
    tensors = read_shapes(path)
    family = text_of(server.post_json("family", {"tensors": tensors}).get("family")) if tensors else ""
    with _lock:
        if len(_families) >= MAX_KNOWN:
            _families.clear()
        _families[key] = family or UNKNOWN
    return family or UNKNOWN


def read_shapes(path: str) -> dict[str, list[int]]:
    """The shapes of the matrices that draw, by name; empty if the file is no safetensors."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if 2 <= length <= MAX_HEADER_BYTES else None
    except (OSError, ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        return {}
    shapes = {name: shape for name, entry in header.items() if (shape := shape_of(entry))}
    drawing = {name: shape for name, shape in shapes.items() if name.startswith(DIFFUSION)} or shapes
    return dict(list(drawing.items())[:MAX_TENSORS])


def shape_of(entry: Any) -> list[int] | None:
    """The shape of a header's entry, if it is one of a matrix."""
    shape = entry.get("shape") if isinstance(entry, dict) else None
    is_matrix = isinstance(shape, list) and len(shape) > 1 and all(type(side) is int and side > 0 for side in shape)
    return shape if is_matrix else None
