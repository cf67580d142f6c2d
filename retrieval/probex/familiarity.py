"""Whether updates are of the tree that an expert knows: how much of them lies in the directions where that tree's updates lie.

LoRAs of one base model share the few output directions of each layer that change what is drawn; those of a base model trained on its own lie in others,
and no better than random ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.probex.batched_factors import Factors, energy, widen
from loradex.retrieval.probex.sketch import BATCH, SketchConfig, principal_directions

DIRECTIONS: Final = 8  # of each layer
FAMILIAR: Final = 0.5  # half way between random updates and those of the tree


@dataclass(frozen=True, slots=True)
class Familiarity:
    """Principal output directions of one tree's updates.

    Attributes:
        directions: for each layer (DIRECTIONS, out).
        share: the mean share of the training updates' energy that lies in them, less what lies there by chance.
    """

    directions: dict[str, Tensor]
    share: float

    @classmethod
    def of(cls, models: Mapping[str, Factors]) -> "Familiarity":
        """The directions of training models."""
        directions = {}
        for layer, factors in models.items():
            count = min(DIRECTIONS, factors.up.shape[1])
            directions[layer] = principal_directions(factors, SketchConfig((layer,), outputs=count, inputs=1))[0]
        share = float(Familiarity(directions, 1.0).of_models(models).mean())
        return cls(directions, max(share, 1e-6))

    def of_models(self, models: Mapping[str, Factors]) -> Tensor:
        """How familiar models (models,) look by the layers that they have: about 1 for the tree's own, 0 for random updates."""
        shares = []
        for layer, factors in models.items():
            directions = self.directions[layer]
            chance = directions.shape[0] / directions.shape[1]
            parts = [
                captured(factors[start : start + BATCH], directions) - chance for start in range(0, len(factors), BATCH)
            ]
            shares.append(torch.cat(parts))
        return torch.stack(shares).mean(0) / self.share


def captured(factors: Factors, directions: Tensor) -> Tensor:
    """The share (models,) of the energy of each dW that lies in orthonormal output directions (k, out)."""
    wide = widen(factors)
    return energy(Factors(wide.down, directions @ wide.up)) / energy(wide).clamp_min(1e-20)
