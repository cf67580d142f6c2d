"""Everything that turns files, words and pictures into vectors of one space, from one folder.

The folder holds ``space.safetensors``, ``labels.safetensors``, ``experts/<tree>.safetensors`` and, when the space names it so, the text encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from retrieval.errors import CheckpointError, NoExpert
from retrieval.label import LabelList
from retrieval.lora import LoraFile
from retrieval.probex.expert import Expert
from retrieval.space import Space
from retrieval.text import TextEncoder


@dataclass(frozen=True)
class Encoder:
    """A space, its text encoder, and the experts of the model trees that can be read."""

    folder: Path
    space: Space
    experts: dict[str, Expert]

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Read the space and every expert beside it.

        Raises:
            CheckpointError: something is missing or damaged, or an expert belongs to another space.
        """
        space = Space.load(folder / "space.safetensors")
        experts = {}
        for path in sorted((folder / "experts").glob("*.safetensors")):
            expert = Expert.load(path)
            if expert.space != space.name:
                raise CheckpointError(f"{path}: expected an expert of space {space.name}, found one of {expert.space}; keep each space's experts apart")
            experts[expert.tree] = expert
        return cls(folder, space, experts)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The CLIP of the space, loaded when it is first needed."""
        name = self.space.text_encoder
        if name.startswith("local-dir:"):
            name = f"local-dir:{self.folder / name.removeprefix('local-dir:')}"
        return TextEncoder.load(name, self.space.templates)

    @cached_property
    def default_labels(self) -> LabelList:
        """The labels that lie in ``labels.safetensors`` beside the space."""
        return LabelList.load(self.folder / "labels.safetensors")

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (n, dim) of texts.

        Raises:
            QueryError: a text is empty or too long.
        """
        return self.space.place(self.text_encoder.encode(texts))

    def encode_pictures(self, pictures: Sequence[Any]) -> Tensor:
        """Unit vectors (n, dim) of PIL pictures."""
        return self.space.place_pictures(self.text_encoder.encode_pictures(pictures))

    def route(self, lora: LoraFile) -> Expert:
        """The expert of a file's model tree.

        Raises:
            NoExpert: there is none, or the file lacks layers that it needs.
        """
        expert = self.experts.get(lora.family)
        known = ", ".join(sorted(self.experts)) or "none"
        if expert is None:
            raise NoExpert(f"{lora.path}: expected a LoRA of a model tree with an expert ({known}), found family {lora.family}; train an expert for it")
        if not expert.fits(lora):
            missing = next(layer for layer, shape in expert.shapes.items() if lora.shapes.get(layer) != shape)
            raise NoExpert(
                f"{lora.path}: expected layer {missing} of {expert.shapes[missing]}, found {lora.shapes.get(missing)}; the LoRA was trained on other layers"
            )
        return expert

    def encode_file(self, lora: LoraFile) -> Tensor:
        """The unit vector (dim,) of a file.

        Raises:
            NoExpert: no expert reads its model tree.
            FileCorrupt: the weights cannot be used.
        """
        return self.route(lora).encode([lora])[0]
