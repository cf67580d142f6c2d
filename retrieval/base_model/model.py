"""A base model: a folder of diffusers, or a checkpoint in one file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from loradex.retrieval.base_model.checkpoint_file import read_checkpoint_file
from loradex.retrieval.base_model.fingerprint import fingerprint_of
from loradex.retrieval.base_model.folder import read_folder
from loradex.retrieval.base_model.part import Part


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model on disk.

    Attributes:
        path: of the folder or file, as it was named.
        family: as ``loradex.retrieval.lora.family`` names it, or ``unknown``.
        kind: ``folder`` (of diffusers) or ``file`` (a checkpoint of CompVis or SGM).
        parts: by diffusers' names of components: text_encoder, text_encoder_2, unet, vae ...
        fingerprint: made of headers, configurations and a few of the weights, so that it tells whether the base has
            changed; the same wherever the files lie.
    """

    path: Path
    family: str
    kind: str
    parts: Mapping[str, Part]
    fingerprint: str

    @classmethod
    def open(cls, path: str | Path) -> "BaseModel":
        """Read the headers and configurations of a base model.

        Raises:
            FileMissing: there is nothing at the path, or a file of the model is missing.
            FileUnsafe: it is a pickle.
            FileCorrupt: a header or a configuration contradicts itself.
            FileUnsupported: it is something else, which the message names.
        """
        path = Path(path)
        if os.path.isdir(path):  # noqa: PTH112 - also False for impossible names
            kind, (family, parts) = "folder", read_folder(path)
        else:
            kind, (family, parts) = "file", read_checkpoint_file(path)
        return cls(path, family, kind, parts, fingerprint_of(parts))

    @property
    def size(self) -> int:
        """The size of all files of its parts, in bytes."""
        return sum(file.stat().st_size for file in {file for part in self.parts.values() for file in part.files})
