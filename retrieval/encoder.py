"""Everything that turns files, words and pictures into vectors of one space, from one folder.

The folder holds ``space.safetensors``, ``labels.safetensors``, ``experts/<tree>.safetensors``, ``categories/<tree>.safetensors`` for trees of whole models,
and, when the space names it so, the text encoder.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.router import Router
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.labels import LabelList
from loradex.retrieval.space.text_encoder import TextEncoder

PICTURES = 64  # a batch
LABELS = "labels.safetensors"
Kind = TypeVar("Kind", Expert, CategoryExpert)


@dataclass(frozen=True)
class Encoder:
    """A space, its text encoder, and the experts of the model trees that can be read; ``categories`` are those of whole models."""

    folder: Path
    space: Space
    experts: dict[str, Expert]
    router: Router
    files: tuple[Path, ...] = ()
    categories: dict[str, CategoryExpert] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, *others: Path) -> "Encoder":
        """Read the space and every expert beside it, and from ``others`` the experts of the same space.

        Raises:
            CheckpointError: something is missing or damaged, or an expert in ``folder`` belongs to another space.
        """
        space = Space.load(folder / "space.safetensors")
        bases: dict[str, Path] = {}
        files = [folder / "space.safetensors"]
        experts = of_space(space.name, (folder, *others), "experts", Expert.load, bases, files)
        categories = of_space(space.name, (folder, *others), "categories", CategoryExpert.load, bases, files)
        router = Router({**experts, **categories}, {tree: base for tree, base in bases.items() if base.is_file()})
        return cls(folder, space, experts, router, tuple(files), categories)

    def on(self, device: str) -> "Encoder":
        """The same, with experts that encode on a device."""
        experts = {tree: expert.on(device) for tree, expert in self.experts.items()}
        categories = {tree: expert.on(device) for tree, expert in self.categories.items()}
        return replace(
            self, experts=experts, categories=categories, router=Router({**experts, **categories}, self.router.bases)
        )

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


def of_space(
    space: str,
    places: Sequence[Path],
    kind: str,
    load: Callable[[Path], Kind],
    bases: dict[str, Path],
    files: list[Path],
) -> dict[str, Kind]:
    """The experts of a space in the folders ``kind`` of some places, the first of each tree; their files and the weights of their ancestors are noted.

    Raises:
        CheckpointError: one is damaged, or one in the first place belongs to another space.
    """
    experts: dict[str, Kind] = {}
    for place in places:
        for path in sorted((place / kind).glob("*.safetensors")):
            expert = load(path)
            if expert.space == space:
                if expert.tree not in experts:
                    experts[expert.tree] = expert
                    files.append(path)
                if expert.base and experts[expert.tree] is expert:
                    bases[expert.tree] = place / expert.base
            elif place == places[0]:
                raise CheckpointError(
                    f"{path}: expected an expert of space {space}, found one of {expert.space}; keep each space's experts apart"
                )
    return experts
