"""The weight-language space: where experts put models and where words are put beside them.

A space is a CLIP, prompt templates, the centres of its texts and of its pictures, and what labels are calibrated by.
A text's vector is its CLIP vector less the centre of texts, at unit length; a picture's, its CLIP vector less the centre of pictures.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.checkpoint import load_checkpoint, save_checkpoint

FORMAT: Final = "loradex-space-1"


@dataclass(frozen=True, slots=True)
class Background:
    """Where models lie as a whole, which labels are measured against.

    Some words lie near many models (hubs), others near few. A label's score is therefore standardised: how many standard
    deviations nearer to the model it lies than to models in general.

    Attributes:
        mean: (dim,); covariance: (dim, dim), of unit vectors of training models.
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, models: Tensor) -> "Background":
        """The background of training models (n, dim)."""
        return cls(models.mean(0), torch.cov(models.mT))

    def standardise(self, models: Tensor, labels: Tensor) -> Tensor:
        """Scores (models, labels) of unit vectors (models, dim) and (labels, dim)."""
        spread = ((labels @ self.covariance) * labels).sum(1).clamp_min(1e-12).sqrt()
        return (models - self.mean) @ labels.mT / spread


@dataclass(frozen=True, slots=True)
class Space:
    """One space; experts and zoos are bound to its ``name``.

    Attributes:
        text_encoder: how open_clip finds it; a relative ``local-dir:`` starts at the folder of the space's file.
        templates: prompts with ``{}`` in place of the text.
        centre: (dim,), the mean text vector of everyday concepts.
        picture_centre: (dim,), the mean picture vector of the same.
        background: what scores of labels are standardised by.
        temperature: standardised scores over this are the logits of calibrated probabilities.
        unknown_below: a best standardised score below this is answered with "unknown".
    """

    text_encoder: str
    templates: tuple[str, ...]
    centre: Tensor
    picture_centre: Tensor
    background: Background
    temperature: float
    unknown_below: float

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

    def probabilities(self, scores: Tensor) -> Tensor:
        """Calibrated probabilities of standardised scores, over the last axis."""
        return (scores / self.temperature).softmax(-1)

    def save(self, path: Path) -> None:
        """One self-describing safetensors file."""
        settings = {name: getattr(self, name) for name in ("text_encoder", "templates", "temperature", "unknown_below")}
        tensors = {"centre": self.centre, "picture_centre": self.picture_centre, "mean": self.background.mean, "covariance": self.background.covariance}
        save_checkpoint(path, FORMAT, settings, {name: tensor.float() for name, tensor in tensors.items()})

    @classmethod
    def load(cls, path: Path) -> "Space":
        """Read a space.

        Raises:
            CheckpointError: the file is missing, damaged or of another format.
        """
        settings, tensors = load_checkpoint(path, FORMAT)
        return cls(
            text_encoder=str(settings["text_encoder"]),
            templates=tuple(settings["templates"]),
            centre=tensors["centre"],
            picture_centre=tensors["picture_centre"],
            background=Background(tensors["mean"], tensors["covariance"]),
            temperature=float(settings["temperature"]),
            unknown_below=float(settings["unknown_below"]),
        )
