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

from retrieval.probex.objective import Membership
from retrieval.probex.probes import ProbeConfig
from retrieval.probex.probing import Factors
from retrieval.probex.study import Aim, PackedModels

CHOSEN: Final = "dataset_chosen_targets"  # where Model-J's headers name a model's categories, as Python writes a list of strings
LONGEST: Final = 2**20  # characters of such a list
SPLITS: Final = ("train", "val", "test")


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
        if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
            return tuple(found)
    return None


def category_study(models: dict[str, Factors], chosen: Sequence[Sequence[str]], split: Sequence[str]) -> CategoryStudy:
    """A study of packed ``models``, each with the categories that it was trained on and its split."""
    names = tuple(sorted({name for each in chosen for name in each}))
    members = torch.tensor([[name in each for name in names] for each in map(set, chosen)])
    return CategoryStudy(models, members, np.array(split), names)


def files_by_split(folder: Path) -> list[tuple[Path, str]]:
    """The files of a folder in Model-J's layout, ``<split>/.../*.safetensors``, with their splits."""
    return [(path, split) for split in SPLITS for path in sorted((folder / split).rglob("*.safetensors"))]
