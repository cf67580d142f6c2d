"""The weight-language space: where experts put models and where words are put beside them.

A space is a CLIP, prompt templates, and the centres of its texts and of its pictures.
A text's vector is its CLIP vector less the centre of texts, at unit length; a picture's, its CLIP vector less the centre of pictures.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint

FORMAT: Final = "loradex-space-2"


@dataclass(frozen=True, slots=True)
class Space:
    """One space; experts and zoos are bound to its ``name``.

    Attributes:
        text_encoder: how open_clip finds it; a relative ``local-dir:`` starts at the folder of the space's file.
        templates: prompts with ``{}`` in place of the text.
        centre: (dim,), the mean text vector of everyday concepts.
        picture_centre: (dim,), the mean picture vector of the same.
    """

    text_encoder: str
    templates: tuple[str, ...]
    centre: Tensor
    picture_centre: Tensor

    @property
    def dim(self) -> int:
        """The length of its vectors."""
        return len(self.centre)

    @property
    def name(self) -> str:
        """A name made of all that decides where texts and pictures lie, so that two different spaces never share one."""
        digest = hashlib.sha256(json.dumps([self.text_encoder, self.templates]).encode())
        for centre in (self.centre, self.picture_centre):
            digest.update(centre.numpy().astype("<f4").tobytes())
        return f"{self.text_encoder.rsplit('/', 1)[-1].removeprefix('local-dir:')}-{digest.hexdigest()[:12]}"

    def place(self, text_vectors: Tensor) -> Tensor:
        """Unit vectors (n, dim) in the space of CLIP vectors (n, dim)."""
        return F.normalize(text_vectors - self.centre, dim=-1)

    def place_pictures(self, picture_vectors: Tensor) -> Tensor:
        """Unit vectors (n, dim) in the space of CLIP's picture vectors (n, dim)."""
        return F.normalize(picture_vectors - self.picture_centre, dim=-1)

    def save(self, path: Path) -> None:
        """One self-describing safetensors file."""
        settings = {"text_encoder": self.text_encoder, "templates": self.templates}
        save_checkpoint(
            path, FORMAT, settings, {"centre": self.centre.float(), "picture_centre": self.picture_centre.float()}
        )

    @classmethod
    def load(cls, path: Path) -> "Space":
        """Read a space.

        Raises:
            CheckpointError: the file is missing, damaged or of another format.
        """
        settings, tensors = load_checkpoint(path, FORMAT)
        return cls(
            str(settings["text_encoder"]), tuple(settings["templates"]), tensors["centre"], tensors["picture_centre"]
        )
