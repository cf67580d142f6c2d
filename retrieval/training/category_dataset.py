"""Whole models of one tree in memory, beside the categories that each was trained on: ProbeX's first setting (Horwitz et al., CVPR 2025, section 5.1)."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.errors import FileError, FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.header import Header
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.objective import Membership
from loradex.retrieval.probex.probes import ProbeConfig
from loradex.retrieval.training.concept_dataset import Aim, PackedModels
from loradex.retrieval.training.labelled_loras import split_of

CHOSEN: Final = (
    "dataset_chosen_targets"  # where Model-J's headers name a model's categories, as Python writes a list of strings
)
LONGEST: Final = 2**20  # characters of such a list
LONGEST_NAME: Final = 200  # characters of a category
MOST_CATEGORIES: Final = 22_000  # of a tree; ImageNet has 21,841
SPLITS: Final = ("train", "val", "test")
KNOWN_MODELS: Final = ("train", "val")  # what ships is fitted on
WITHOUT_CONCEPTS: Final = {"val_holdout": "val", "test_holdout": "test"}  # no category is held out, only models


@dataclass(frozen=True, slots=True)
class Classifier:
    """A whole model whose header names the categories that it was trained on."""

    path: Path
    split: str
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CategoryStudy(PackedModels):
    """Whole models of one tree.

    Attributes:
        models: the packed factors of each layer.
        members: (models, categories), whether a category was in a model's training set.
        split: (models,), "train", "val" or "test".
        names: of the categories.
    """

    models: dict[str, Factors]
    members: Tensor
    split: np.ndarray
    names: tuple[str, ...]

    @property
    def judged(self) -> Tensor:
        """The models by which choices are made."""
        return self.rows("val")

    def aims(self, rows: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
        """What a closed form is to say of some models: 1 or -1 for each category; each model is a group of its own."""
        return self.members[rows].float() * 2 - 1, torch.arange(len(rows))

    def objective(self, rows: Tensor, aim: Aim) -> Membership:
        """What probes are to learn of some models."""
        return Membership(self.members[rows])

    def net_for(self, model: ProbeConfig, aim: Aim) -> ProbeConfig:
        """The shape of a net that says it."""
        return replace(model, text_projection=False, categories=len(self.names))

    def merit(self, scores: Tensor, rows: Tensor) -> float:
        """The share of categories that scores (models, categories) above or below 0 say rightly."""
        return float(((scores > 0) == self.members[rows]).float().mean())


def chosen_categories(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The categories that a header names, in JSON or as Python writes a list of strings; None if it names none. Nothing is evaluated."""
    said = metadata.get(CHOSEN, "")
    if not 0 < len(said) <= LONGEST:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(said)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        if isinstance(found, list) and found and all(is_name(name) for name in found):
            return tuple(found)
    return None


def is_name(said: object) -> bool:
    """Whether what a header says can name a category."""
    return isinstance(said, str) and len(said.strip()) > 0 and len(said) <= LONGEST_NAME and said.isprintable()


def category_study(models: dict[str, Factors], found: Sequence[Classifier]) -> CategoryStudy:
    """A study of ``found`` models and their packed factors.

    Raises:
        FileUnsupported: they name too many categories.
    """
    names = tuple(sorted({name for each in found for name in each.categories}))
    if len(names) > MOST_CATEGORIES:
        raise FileUnsupported(
            f"{found[0].path}: expected at most {MOST_CATEGORIES} categories in all models, found {len(names)}; are they names of files?"
        )
    members = torch.tensor([[name in own for name in names] for own in (set(each.categories) for each in found)])
    return CategoryStudy(models, members, np.array([each.split for each in found]), names)


def find_classifiers(folder: Path) -> list[Classifier]:
    """The whole models below ``folder`` whose headers name categories, by split and path; none unless most of its models are such.

    Splits are those of Model-J's layout, ``<split>/.../*.safetensors``; in any other folder a tenth each is kept for validation and test, by their names.
    """
    ordered = any((folder / split).is_dir() for split in SPLITS)
    found, others = list[Classifier](), 0
    for path in sorted(folder.rglob("*.safetensors")):
        split = path.relative_to(folder).parts[0] if ordered else split_of("/".join(path.resolve().parts[-2:]))
        split = WITHOUT_CONCEPTS.get(split, split)
        categories = categories_in(path)
        others += categories is None
        if split in SPLITS and categories:
            found.append(Classifier(path, split, categories))
    return sorted(found, key=lambda model: (SPLITS.index(model.split), model.path)) if len(found) > others else []


def categories_in(path: Path) -> tuple[str, ...] | None:
    """The categories that the header of a whole model names; None if it names none, is a LoRA's, or cannot be read."""
    try:
        header = Header.read(path)
    except FileError:
        return None
    categories = chosen_categories(header.metadata)
    return None if categories is None or is_lora(header) else categories


def is_lora(header: Header) -> bool:
    """Whether it is that of a LoRA."""
    try:
        LoraFile.of(header)
    except FileError:
        return False
    return True
