"""Everything that turns files, words and pictures into vectors of one space, from one folder.

The folder holds ``space.safetensors``, ``labels.safetensors``, ``experts/<tree>.safetensors`` and, when the space names it so, the text encoder.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval.errors import CheckpointError
from retrieval.label import LabelList
from retrieval.lora import WeightsFile
from retrieval.probex.expert import Expert
from retrieval.router import Router
from retrieval.space import Space
from retrieval.text import TextEncoder

PICTURES = 64  # a batch
LABELS = "labels.safetensors"


@dataclass(frozen=True)
class Encoder:
    """A space, its text encoder, and the experts of the model trees that can be read."""

    folder: Path
    space: Space
    experts: dict[str, Expert]
    router: Router
    files: tuple[Path, ...] = ()

    @classmethod
    def load(cls, folder: Path, *others: Path) -> "Encoder":
        """Read the space and every expert beside it, and from ``others`` the experts of the same space.

        Raises:
            CheckpointError: something is missing or damaged, or an expert in ``folder`` belongs to another space.
        """
        space = Space.load(folder / "space.safetensors")
        experts: dict[str, Expert] = {}
        bases: dict[str, Path] = {}
        files = [folder / "space.safetensors"]
        for place in (folder, *others):
            for path in sorted((place / "experts").glob("*.safetensors")):
                expert = Expert.load(path)
                if expert.space == space.name:
                    if expert.tree not in experts:
                        experts[expert.tree] = expert
                        files.append(path)
                    if expert.base and experts[expert.tree] is expert:
                        bases[expert.tree] = place / expert.base
                elif place == folder:
                    raise CheckpointError(f"{path}: expected an expert of space {space.name}, found one of {expert.space}; keep each space's experts apart")
        return cls(folder, space, experts, Router(experts, {tree: base for tree, base in bases.items() if base.is_file()}), tuple(files))

    def on(self, device: str) -> "Encoder":
        """The same, with experts that encode on a device."""
        experts = {tree: expert.on(device) for tree, expert in self.experts.items()}
        return replace(self, experts=experts, router=Router(experts, self.router.bases))

    @cached_property
    def signature(self) -> str:
        """A name made of the space and of all experts, by which files are known to have been read with them."""
        digest = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()[:12]

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The CLIP of the space, loaded when it is first needed."""
        name = self.space.text_encoder
        if name.startswith("local-dir:"):
            name = f"local-dir:{self.folder / name.removeprefix('local-dir:')}"
        return TextEncoder.load(name, self.space.templates)

    @property
    def has_labels(self) -> bool:
        """Whether there are default labels."""
        return (self.folder / LABELS).is_file()

    @cached_property
    def default_labels(self) -> LabelList:
        """The labels that lie in ``labels.safetensors`` beside the space."""
        return LabelList.load(self.folder / LABELS)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (n, dim) of texts.

        Raises:
            QueryError: a text is empty or too long.
        """
        return self.space.place(self.text_encoder.encode(texts))

    def encode_pictures(self, pictures: Sequence[Any]) -> Tensor:
        """Unit vectors (n, dim) of PIL pictures."""
        batches = (pictures[start : start + PICTURES] for start in range(0, len(pictures), PICTURES))
        return self.space.place_pictures(torch.cat([self.text_encoder.encode_pictures(batch) for batch in batches]))

    def encode_file(self, model: WeightsFile) -> Tensor:
        """The unit vector (dim,) of a file that ``router`` opened.

        Raises:
            NoExpert: no expert reads its model tree.
            FileCorrupt: the weights cannot be used.
        """
        expert, layers = self.router.route(model)
        return expert.encode_factors(layers)[0]
