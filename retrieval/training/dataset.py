"""Datasets: models of one tree in memory, with what an expert is to predict for them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.objective import Objective
from loradex.retrieval.probex.probes import ProbeConfig


class Aim(StrEnum):
    """Which vectors an expert is trained to predict for models of a concept."""

    CLIP_TEXTS = "clip texts"  # CLIP's vectors of the concept's name, through a learned projection, as published
    LABELS = "labels"  # the vectors of the concept's name in the space
    DRAWINGS = "drawings"  # the vectors of drawings of the concept in the space


class Dataset(ABC):
    """Models of one tree, with their labels.

    Attributes:
        models: the packed factors of each layer.
        split: (models,), the split of each model, by Model-J's names.
    """

    __slots__ = ()
    models: dict[str, Factors]
    split: np.ndarray

    def rows(self, *splits: str) -> Tensor:
        """The rows of the models in some splits."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.split, splits)))

    def take(self, rows: Tensor, layers: Sequence[str] | None = None) -> dict[str, Factors]:
        """The factors of some models, by layer; of all layers if ``layers`` is None."""
        return {layer: self.models[layer][rows] for layer in (layers or self.models)}

    @property
    @abstractmethod
    def validation_rows(self) -> Tensor:
        """The rows of the models by which configurations and epochs are chosen."""

    @abstractmethod
    def regression_targets(self, rows: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
        """The targets (rows, dim) of a closed form for some models, and the group of each (rows,).

        Models of one group are left out together in cross-validation.
        """

    @abstractmethod
    def objective(self, rows: Tensor, aim: Aim) -> Objective:
        """The training objective of probes for some models."""

    @abstractmethod
    def adapt_config(self, config: ProbeConfig, aim: Aim) -> ProbeConfig:
        """Return the config of a net with outputs that fit the objective."""

    @abstractmethod
    def validation_score(self, scores: Tensor, rows: Tensor) -> float:
        """The quality of the scores of some models; higher is better."""
