"""The weight-language space: where experts put models and where words are put beside them.

A space is a text encoder, prompt templates, the centre of its texts, a temperature, and a threshold for "unknown".
A word's vector is its CLIP text vector less the centre, at unit length; experts are fitted to reach that vector.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch.nn.functional as F
from torch import Tensor

from retrieval.checkpoint import load_checkpoint, save_checkpoint

FORMAT: Final = "loradex-space-1"


@dataclass(frozen=True, slots=True)
class Space:
    """One space; experts and zoos are bound to its ``name``.

    Attributes:
        text_encoder: how open_clip finds it; a relative ``local-dir:`` starts at the folder of the space's file.
        templates: prompts with ``{}`` in place of the text.
        centre: (dim,), the mean text vector of everyday concepts.
        temperature: cosines over this are the logits of calibrated probabilities.
        unknown_below: a best cosine below this is answered with "unknown".
    """

    text_encoder: str
    templates: tuple[str, ...]
    centre: Tensor
    temperature: float
    unknown_below: float

    @property
    def dim(self) -> int:
        """The length of its vectors."""
        return len(self.centre)

    @property
    def name(self) -> str:
        """A name made of all that decides where a text lies, so that two different spaces never share one."""
        digest = hashlib.sha256(json.dumps([self.text_encoder, self.templates]).encode())
        digest.update(self.centre.numpy().astype("<f4").tobytes())
        return f"{self.text_encoder.rsplit('/', 1)[-1].removeprefix('local-dir:')}-{digest.hexdigest()[:12]}"

    def place(self, text_vectors: Tensor) -> Tensor:
        """Unit vectors (n, dim) in the space of CLIP vectors (n, dim)."""
        return F.normalize(text_vectors - self.centre, dim=-1)

    def probabilities(self, cosines: Tensor) -> Tensor:
        """Calibrated probabilities over the last axis."""
        return (cosines / self.temperature).softmax(-1)

    def save(self, path: Path) -> None:
        """One self-describing safetensors file."""
        settings = {key: value for key, value in asdict(self).items() if key != "centre"}
        save_checkpoint(path, FORMAT, settings, {"centre": self.centre.float()})

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
            temperature=float(settings["temperature"]),
            unknown_below=float(settings["unknown_below"]),
        )
