"""Self-describing checkpoints: one safetensors file whose header holds all the settings needed to use it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from loradex.retrieval.errors import CheckpointError


def save_checkpoint(path: Path, form: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write ``tensors`` with ``settings`` (JSON) and the format's name in the header.

    Raises:
        CheckpointError: it cannot be written.
    """
    save_tensors(path, tensors, {"format": form, "settings": json.dumps(settings)})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Put a file of tensors in its place when it is whole.

    Raises:
        CheckpointError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, dict(metadata))
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected a place to write to, found: {error}; name another folder") from None


def load_checkpoint(path: Path, form: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and tensors of a checkpoint of format ``form``.

    Raises:
        CheckpointError: it is missing, damaged or of another format.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint of format {form}, found none: {error}; train one or restore the file"
        ) from None
    if metadata.get("format") != form:
        raise CheckpointError(
            f"{path}: expected format {form}, found {metadata.get('format')!r}; use the Loradex that wrote it, or train it again"
        )
    return json.loads(metadata["settings"]), tensors
