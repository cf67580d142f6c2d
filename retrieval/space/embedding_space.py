"""The embedding space of models, texts and pictures: that of one CLIP, centred.

A text's vector is its CLIP vector less the mean of texts, at unit length; a picture's vector is its CLIP vector less
the mean of pictures, at unit length. Experts are trained to map models into the same space.
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
    """An embedding space; experts and zoos are bound to its ``name``.

    Attributes:
        text_encoder: a name for open_clip; a relative ``local-dir:`` path starts at the folder of the space's file.
        templates: prompts with ``{}`` in place of the text.
        centre: (dim,), the mean text vector of common concepts.
        picture_centre: (dim,), the mean picture vector of the same concepts.
        made_from: a digest of all that the space was computed from, which is the same on every machine; empty if it is
            named by its centres. Centres that two machines compute differ in the last digits.
    """

    text_encoder: str
    templates: tuple[str, ...]
    centre: Tensor
    picture_centre: Tensor
    made_from: str = ""

    @property
    def dim(self) -> int:
        """The dimension of the space."""
        return len(self.centre)

    @property
    def name(self) -> str:
        """A name that no two different spaces share: what they are made from, or a digest of all settings."""
        if self.made_from:
            return f"clip-{self.dim}-{self.made_from[:12]}"
        digest = hashlib.sha256(json.dumps([self.text_encoder, self.templates]).encode())
        for centre in (self.centre, self.picture_centre):
            digest.update(centre.numpy().astype("<f4").tobytes())
        return f"{self.text_encoder.rsplit('/', 1)[-1].removeprefix('local-dir:')}-{digest.hexdigest()[:12]}"

    def centre_texts(self, vectors: Tensor) -> Tensor:
        """Map CLIP's text vectors (n, dim) to unit vectors (n, dim) of the space."""
        return F.normalize(vectors - self.centre, dim=-1)

    def centre_pictures(self, vectors: Tensor) -> Tensor:
        """Map CLIP's picture vectors (n, dim) to unit vectors (n, dim) of the space."""
        return F.normalize(vectors - self.picture_centre, dim=-1)

    def save(self, path: Path) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: the file cannot be written.
        """
        settings = {"text_encoder": self.text_encoder, "templates": self.templates}
        if self.made_from:
            settings["made_from"] = self.made_from
        save_checkpoint(
            path, FORMAT, settings, {"centre": self.centre.float(), "picture_centre": self.picture_centre.float()}
        )

    @classmethod
    def load(cls, path: Path) -> "Space":
        """Read a checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged or of another format.
        """
        settings, tensors = load_checkpoint(path, FORMAT)
        return cls(
            str(settings["text_encoder"]),
            tuple(settings["templates"]),
            tensors["centre"],
            tensors["picture_centre"],
            str(settings.get("made_from", "")),
        )
