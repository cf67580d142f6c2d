"""Encoders: everything that turns model files, texts and pictures into vectors of one space, from one folder.

The folder holds ``space.safetensors``, ``labels.safetensors`` and, where these are few, ``everyday.safetensors``,
``experts/<tree>.safetensors`` for LoRAs,
``categories/<tree>.safetensors`` for classifiers and, if ``loradex space use`` made it, the text encoder in ``clip``.
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
from loradex.retrieval.space.clip_files import LOCAL_FOLDER
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.everyday import everyday_words
from loradex.retrieval.space.labels import LabelList
from loradex.retrieval.space.likelihood import Likelihood, QuerySpread
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.space.text_tower import CONFIG_FILE

PICTURE_BATCH = 64
LABELS_FILE = "labels.safetensors"
EVERYDAY_FILE = "everyday.safetensors"
MIN_EVERYDAY_TEXTS = 500  # of a comparison: the more likely of few texts is not yet likely
SPACE_FILE = "space.safetensors"
CACHED = (
    "signature",
    "file_digests",
    "default_labels",
    "everyday_texts",
    "text_encoder",
)  # what an encoder computes or loads when it is first needed
CLIP_FOLDER = "clip"
SIGNATURE_LENGTH = 12  # hexadecimal digits
ExpertT = TypeVar("ExpertT", Expert, CategoryExpert)


@dataclass(frozen=True)
class Encoder:
    """A space, its text encoder, and the experts of all model trees that can be read.

    Attributes:
        experts: by model tree, of models that draw.
        router: chooses among all experts.
        files: the files of the space and of all experts.
        categories: by model tree, the experts of classifiers.
    """

    folder: Path
    space: Space
    experts: dict[str, Expert]
    router: Router
    files: tuple[Path, ...] = ()
    categories: dict[str, CategoryExpert] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, *others: Path) -> "Encoder":
        """Read the space and all experts in ``folder``, and the experts of the same space in the folders ``others``.

        Raises:
            CheckpointError: a file is missing or damaged, or an expert in ``folder`` belongs to another space.
        """
        space = Space.load(folder / SPACE_FILE)
        bases: dict[str, Path] = {}
        files = [folder / SPACE_FILE]
        experts = load_experts(space.name, (folder, *others), "experts", Expert.load, bases, files)
        categories = load_experts(space.name, (folder, *others), "categories", CategoryExpert.load, bases, files)
        router = Router({**experts, **categories}, {tree: base for tree, base in bases.items() if base.is_file()})
        return cls(folder, space, experts, router, tuple(files), categories)

    def to(self, device: str) -> "Encoder":
        """Return the encoder with all experts on a device."""
        experts = {tree: expert.to(device) for tree, expert in self.experts.items()}
        categories = {tree: expert.to(device) for tree, expert in self.categories.items()}
        router = Router({**experts, **categories}, self.router.bases)
        moved = replace(self, experts=experts, categories=categories, router=router)
        moved.__dict__.update({name: self.__dict__[name] for name in CACHED if name in self.__dict__})
        return moved

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the text encoder, which is large and cannot be pickled.

        Default labels that were loaded stay: a process on another machine has no access to their file.
        """
        return {name: value for name, value in self.__dict__.items() if name != "text_encoder"}

    @cached_property
    def signature(self) -> str:
        """A digest of the space and all experts; a zoo records it to know which encoder read its files."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(self.file_digests[path])
        return digest.hexdigest()[:SIGNATURE_LENGTH]

    @cached_property
    def file_digests(self) -> dict[Path, bytes]:
        """SHA-256 of each of ``files``."""
        digests = {}
        for path in self.files:
            with path.open("rb") as file:
                digests[path] = hashlib.file_digest(file, "sha256").digest()
        return digests

    def signature_of(self, family: str) -> str:
        """A digest of all by which models of one family are read, so that other families' experts may come and go.

        These are the space, the experts of the family, and the experts with a base model, as any file that is no LoRA
        is compared with all base models. A file that cannot be read is of no family ("").
        """
        digest = hashlib.sha256(family.encode() + b"\0" + self.file_digests[self.files[0]])
        experts: dict[str, Expert | CategoryExpert] = {**self.experts, **self.categories}
        for tree, path in sorted(self.expert_files.items()):
            if experts[tree].family == family or experts[tree].base:
                digest.update(tree.encode() + b"\0" + self.file_digests[path])
        return digest.hexdigest()[:SIGNATURE_LENGTH]

    @property
    def expert_files(self) -> dict[str, Path]:
        """The checkpoint of each expert, those of classifiers included, by model tree."""
        return dict(zip((*self.experts, *self.categories), self.files[1:], strict=True))

    @property
    def text_encoder_name(self) -> str:
        """The CLIP of the space by the name it is loaded by: that in the folder, else that which the space names."""
        name = self.space.text_encoder
        if (self.folder / CLIP_FOLDER / CONFIG_FILE).is_file():
            return f"{LOCAL_FOLDER}{self.folder / CLIP_FOLDER}"
        if name.startswith(LOCAL_FOLDER):
            return f"{LOCAL_FOLDER}{self.folder / name.removeprefix(LOCAL_FOLDER)}"
        return name

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The CLIP of the space, loaded on first use.

        Raises:
            CheckpointError: it is not on this machine, or damaged.
        """
        return TextEncoder.load(self.text_encoder_name, self.space.templates)

    @property
    def has_labels(self) -> bool:
        """Whether there are default labels."""
        return "default_labels" in self.__dict__ or (self.folder / LABELS_FILE).is_file()

    @cached_property
    def default_labels(self) -> LabelList:
        """The labels in ``labels.safetensors``; without that file the everyday words, which are encoded first.

        Raises:
            CheckpointError: the file is damaged, or there is none and the text encoder cannot be loaded.
        """
        if self.has_labels:
            return LabelList.load(self.folder / LABELS_FILE)
        return LabelList(everyday_words(), self.encode_texts(everyday_words()))

    @cached_property
    def everyday_texts(self) -> Tensor | None:
        """Unit vectors (n, dim) of the texts with which what evidence says of a query is compared.

        Those of ``everyday.safetensors``, else the default labels; None if there is no file of enough texts.

        Raises:
            CheckpointError: the file is damaged.
        """
        if (self.folder / EVERYDAY_FILE).is_file():
            return LabelList.load(self.folder / EVERYDAY_FILE).vectors
        texts = self.default_labels.vectors if self.has_labels else torch.empty(0)
        return texts if len(texts) >= MIN_EVERYDAY_TEXTS else None

    @cached_property
    def likelihoods(self) -> dict[str | None, Likelihood]:
        """What makes scores of vectors compare: of each expert by its tree, and of pictures under None.

        Empty if there are no everyday texts to compare with.
        """
        if (texts := self.everyday_texts) is None:
            return {}
        likelihoods: dict[str | None, Likelihood] = {None: Likelihood.of_pictures(texts)}
        for tree, expert in self.experts.items():
            likelihoods[tree] = Likelihood.of_expert(expert.calibration, texts)
        return likelihoods

    @cached_property
    def query_spread(self) -> QuerySpread | None:
        """What makes scores of texts compare; None if there are no experts, or no everyday texts to compare with."""
        if not self.experts or (texts := self.everyday_texts) is None:
            return None
        backgrounds = [expert.calibration.background for expert in self.experts.values()]
        return QuerySpread.of(backgrounds, texts)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as unit vectors (n, dim).

        Raises:
            QueryError: a text is empty or too long.
        """
        return self.space.centre_texts(self.text_encoder.encode(texts))

    def encode_pictures(self, pictures: Sequence[Any]) -> Tensor:
        """Encode PIL images as unit vectors (n, dim)."""
        batches = (pictures[start : start + PICTURE_BATCH] for start in range(0, len(pictures), PICTURE_BATCH))
        return self.space.centre_pictures(torch.cat([self.text_encoder.encode_pictures(batch) for batch in batches]))

    def encode_file(self, model: WeightsFile) -> Tensor:
        """Encode a file opened by ``router.open`` as a unit vector (dim,).

        Raises:
            NoExpert: no expert reads its model tree.
            FileCorrupt: the weights cannot be used.
        """
        expert, layers = self.router.route(model)
        return expert.encode_factors(layers)[0]


def load_experts(
    space: str,
    folders: Sequence[Path],
    subfolder: str,
    load: Callable[[Path], ExpertT],
    bases: dict[str, Path],
    files: list[Path],
) -> dict[str, ExpertT]:
    """Load the experts of a space from a subfolder of each folder; of several of one model tree, the first counts.

    Adds the files of their base models to ``bases``, by tree, and their own files to ``files``.

    Raises:
        CheckpointError: a file is damaged, or an expert in the first folder belongs to another space.
    """
    experts: dict[str, ExpertT] = {}
    for folder in folders:
        for path in sorted((folder / subfolder).glob("*.safetensors")):
            expert = load(path)
            if expert.space == space:
                if expert.tree not in experts:
                    experts[expert.tree] = expert
                    files.append(path)
                if expert.base and experts[expert.tree] is expert:
                    bases[expert.tree] = folder / expert.base
            elif folder == folders[0]:
                raise CheckpointError(
                    f"{path}: expected an expert of space {space}, found one of {expert.space}; keep each space's experts apart"
                )
    return experts
