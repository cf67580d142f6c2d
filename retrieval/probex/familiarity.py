"""Familiarity: whether updates are of the model tree of an expert, by the directions in which they lie.

LoRAs of one base model share the few output directions of each layer that change what is drawn. Updates of a base
model trained on its own lie in other directions, and share no more with these than random updates do.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.probex.batched_factors import Factors, LayerFactors, energy, project, to_float32
from loradex.retrieval.probex.directions import BATCH, MIN_ENERGY, principal_directions

DIRECTIONS: Final = 8  # of each layer
MIN_FAMILIARITY: Final = 0.5  # half way between random updates and those of the tree


@dataclass(frozen=True, slots=True)
class Familiarity:
    """Principal output directions of the updates of one model tree.

    Attributes:
        directions: by layer (DIRECTIONS, out), orthonormal rows.
        share: the mean share of the training updates' energy in these directions, less the share expected by chance.
    """

    directions: dict[str, Tensor]
    share: float

    @classmethod
    def fit(cls, models: LayerFactors) -> "Familiarity":
        """Find the directions of training models."""
        directions = {}
        for layer, factors in models.items():
            count = min(DIRECTIONS, factors.shape[0])
            directions[layer] = principal_directions(factors, count, 1)[0]
        share = float(Familiarity(directions, 1.0).scores(models).mean())
        return cls(directions, max(share, 1e-6))

    def scores(self, models: LayerFactors) -> Tensor:
        """Familiarity (models,): about 1 for models of the tree, about 0 for random updates.

        This is the mean over the layers that the models have of (captured share - chance) / ``share``.
        """
        by_layer = []
        for layer, factors in models.items():
            directions = self.directions[layer]
            chance = directions.shape[0] / directions.shape[1]
            batches = (factors[start : start + BATCH] for start in range(0, len(factors), BATCH))
            by_layer.append(torch.cat([captured_share(batch, directions) - chance for batch in batches]))
        return torch.stack(by_layer).mean(0) / self.share


def captured_share(factors: Factors, directions: Tensor) -> Tensor:
    """Share |D X|^2 / |X|^2 (models,) of each update's energy in orthonormal output directions D (k, out)."""
    factors = to_float32(factors)
    return energy(project(factors, directions)) / energy(factors).clamp_min(MIN_ENERGY)
