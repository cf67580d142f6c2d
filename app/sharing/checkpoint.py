"""A checkpoint as it is stored, settings and tensors; and ids that come from the content of such checkpoints."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.probex.expert import FORMAT as EXPERT_FORMAT

ID_LENGTH: Final = 20  # hexadecimal digits
LOCAL_SETTINGS: Final = ("base",)  # of an expert, which name files of one machine


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The settings and the tensors of a checkpoint, in the form in which they are stored."""

    settings: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def load(cls, path: Path, format_name: str) -> Self:
        """Read a checkpoint of this machine.

        Raises:
            CheckpointError: the file is missing, damaged or of another format.
        """
        return cls(*load_checkpoint(path, format_name))

    def save(self, path: Path, format_name: str) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: the file cannot be written.
        """
        save_checkpoint(path, format_name, dict(self.settings), dict(self.tensors))


def load_expert(path: Path) -> Checkpoint:
    """Read an expert of this machine without what names files of this machine.

    Raises:
        CheckpointError: the file is missing, damaged or of another format.
    """
    stored = Checkpoint.load(path, EXPERT_FORMAT)
    return Checkpoint({**stored.settings, **dict.fromkeys(LOCAL_SETTINGS)}, stored.tensors)


def expert_id(expert: Checkpoint) -> str:
    """The id of an expert: the beginning of a SHA-256 over its settings and tensors, wherever it is kept."""
    settings = {name: value for name, value in expert.settings.items() if name not in LOCAL_SETTINGS}
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return content_digest((EXPERT_FORMAT, text), expert.tensors)[:ID_LENGTH]


def content_digest(texts: Iterable[str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over texts and over the names, dtypes, shapes and bytes of tensors."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(raw := text.encode()).to_bytes(8, "little") + raw)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\0")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
