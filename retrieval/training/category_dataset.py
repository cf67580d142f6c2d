"""Datasets of classifiers with the categories they were trained on (ProbeX: Horwitz et al., CVPR 2025, section 5.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.objective import CategoryObjective
from loradex.retrieval.probex.probes import ProbeConfig
from loradex.retrieval.training.dataset import Aim, Dataset
from loradex.retrieval.training.labelled_classifiers import LabelledClassifier

MAX_CATEGORIES: Final = 22_000  # of a tree; ImageNet has 21,841
CATEGORY_FINAL_SPLITS: Final = ("train", "val")  # on which the final expert is fitted


@dataclass(frozen=True, slots=True)
class CategoryDataset(Dataset):
    """Classifiers of one model tree.

    Attributes:
        models: the packed factors of each layer.
        members: (models, categories), whether a model was trained on a category.
        split: (models,), "train", "val" or "test".
        names: of the categories.
    """

    models: dict[str, Factors]
    members: Tensor
    split: np.ndarray
    names: tuple[str, ...]

    @property
    def validation_rows(self) -> Tensor:
        """The rows of the validation models."""
        return self.rows("val")

    def regression_targets(self, rows: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
        """1 or -1 for each category (rows, categories), and a group of its own for each model (rows,)."""
        return self.members[rows].float() * 2 - 1, torch.arange(len(rows))

    def objective(self, rows: Tensor, aim: Aim) -> CategoryObjective:
        """The training objective of probes for some models."""
        return CategoryObjective(self.members[rows])

    def adapt_config(self, config: ProbeConfig, aim: Aim) -> ProbeConfig:
        """Return the config of a net that predicts the categories."""
        return replace(config, text_projection=False, categories=len(self.names))

    def validation_score(self, scores: Tensor, rows: Tensor) -> float:
        """The share of categories predicted correctly by the sign of ``scores`` (rows, categories)."""
        return float(((scores > 0) == self.members[rows]).float().mean())


def make_category_dataset(models: dict[str, Factors], files: Sequence[LabelledClassifier]) -> CategoryDataset:
    """Make a dataset of labelled files and their packed factors.

    Raises:
        FileUnsupported: the files name too many categories.
    """
    names = tuple(sorted({name for file in files for name in file.categories}))
    if len(names) > MAX_CATEGORIES:
        raise FileUnsupported(
            f"{files[0].path}: expected at most {MAX_CATEGORIES} categories in all models, found {len(names)}; are they names of files?"
        )
    categories = (set(file.categories) for file in files)
    members = torch.tensor([[name in own for name in names] for own in categories])
    return CategoryDataset(models, members, np.array([file.split for file in files]), names)
