"""Updates of one layer in many models, as factors, and the linear algebra on them that never multiplies them out.

Notation of ProbeX (Horwitz et al., CVPR 2025, section 4): X is the update dW = up @ down (out x in), U the probes
(in x r_U), V the shared projection (r_V x out). A batch mixes ranks by zero padding, which is exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loradex.retrieval.lora.update import LayerUpdate


@dataclass(frozen=True, slots=True)
class Factors:
    """The updates of one layer in many models.

    Attributes:
        down: (models, rank, in), with rows of zeros beyond a model's own rank.
        up: (models, out, rank), with columns of zeros beyond it.
    """

    down: Tensor
    up: Tensor

    @classmethod
    def stack(cls, updates: Sequence[LayerUpdate]) -> "Factors":
        """Pad updates of one layer to the largest rank among them, in float32."""
        rank = max(update.rank for update in updates)
        down = torch.zeros(len(updates), rank, updates[0].shape[1])
        up = torch.zeros(len(updates), updates[0].shape[0], rank)
        for row, update in enumerate(updates):
            down[row, : update.rank] = update.down
            up[row, :, : update.rank] = update.up
        return cls(down, up)

    @classmethod
    def of_matrices(cls, matrices: Tensor) -> "Factors":
        """Dense matrices (models, out, in) as factors: themselves and the identity of their shorter side."""
        count, out, width = matrices.shape
        identity = torch.eye(min(out, width), dtype=matrices.dtype).expand(count, -1, -1)
        return cls(matrices, identity) if out <= width else cls(identity, matrices)

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self.down)

    def __getitem__(self, rows: Tensor | slice) -> "Factors":
        """Select models."""
        return Factors(self.down[rows], self.up[rows])

    def to(self, device: str) -> "Factors":
        """Return the factors on a device."""
        return Factors(self.down.to(device), self.up.to(device))


LayerFactors = Mapping[str, Factors]  # the updates of some models, by layer


def to_float32(factors: Factors) -> Factors:
    """Return the factors in float32."""
    return Factors(factors.down.float(), factors.up.float())


def stack_layers(models: Sequence[Mapping[str, LayerUpdate]], layers: Sequence[str]) -> dict[str, Factors]:
    """Stack the named layers of many models, each padded to its largest rank."""
    return {layer: Factors.stack([model[layer] for model in models]) for layer in layers}


def bilinear(factors: Factors, left: Tensor, right: Tensor) -> Tensor:
    """``left`` (p, out) X ``right`` (in, q) of each model (models, p, q), as (left up)(down right)."""
    return (left @ factors.up) @ (factors.down @ right)


def energy(factors: Factors) -> Tensor:
    """Squared Frobenius norm |X|^2 of each model (models,), as sum((up^T up) * (down down^T))."""
    return ((factors.up.mT @ factors.up) * (factors.down @ factors.down.mT)).sum((1, 2)).clamp_min(0)


def output_spectrum(factors: Factors, weights: Tensor) -> Tensor:
    """Sum over models of X X^T (out, out), weighted by ``weights`` (models,)."""
    inner = factors.down @ factors.down.mT * weights[:, None, None]  # (models, rank, rank)
    return summed_product(factors.up @ inner, factors.up)


def input_spectrum(factors: Factors, weights: Tensor) -> Tensor:
    """Sum over models of X^T X (in, in), weighted by ``weights`` (models,)."""
    inner = factors.up.mT @ factors.up * weights[:, None, None]
    return summed_product(factors.down.mT @ inner, factors.down.mT)


def summed_product(first: Tensor, second: Tensor) -> Tensor:
    """Sum over models of A B^T (n, n) for A and B (models, n, rank), as one product: nothing is made for each model."""
    return first.transpose(0, 1).flatten(1) @ second.transpose(0, 1).flatten(1).mT
