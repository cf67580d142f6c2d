"""Probing weight updates in factor form: dW = up @ down is never multiplied out.

Notation of ProbeX (Horwitz et al., CVPR 2025, section 4): X is dW (out x in), U the probes (in x r_U), V the shared
projection (r_V x out). A batch mixes ranks by zero padding, which is exact.
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
        down: (models, rank, in), rows of zeros beyond a model's own rank.
        up: (models, out, rank), columns of zeros beyond it.
    """

    down: Tensor
    up: Tensor

    @classmethod
    def stack(cls, updates: Sequence[LayerUpdate]) -> "Factors":
        """Pad updates of one layer to the largest rank among them."""
        rank = max(update.rank for update in updates)
        down = torch.zeros(len(updates), rank, updates[0].shape[1])
        up = torch.zeros(len(updates), updates[0].shape[0], rank)
        for row, update in enumerate(updates):
            down[row, : update.rank] = update.down
            up[row, :, : update.rank] = update.up
        return cls(down, up)

    @classmethod
    def of_matrices(cls, matrices: Tensor) -> "Factors":
        """Matrices (models, out, in) themselves, beside the identity of their shorter side."""
        count, out, width = matrices.shape
        one = torch.eye(min(out, width), dtype=matrices.dtype).expand(count, -1, -1)
        return cls(matrices, one) if out <= width else cls(one, matrices)

    def __len__(self) -> int:
        """How many models there are."""
        return len(self.down)

    def __getitem__(self, rows: Tensor | slice) -> "Factors":
        """The same layer in some of the models."""
        return Factors(self.down[rows], self.up[rows])

    def to(self, device: str) -> "Factors":
        """The same factors on a device."""
        return Factors(self.down.to(device), self.up.to(device))


def widen(factors: Factors) -> Factors:
    """The same factors in single precision."""
    return Factors(factors.down.float(), factors.up.float())


def stack_layers(models: Sequence[Mapping[str, LayerUpdate]], layers: Sequence[str]) -> dict[str, Factors]:
    """The named layers of many models, each padded to its largest rank."""
    return {layer: Factors.stack([model[layer] for model in models]) for layer in layers}


def bilinear(factors: Factors, left: Tensor, right: Tensor) -> Tensor:
    """``left`` (p, out) dW ``right`` (in, q) for each model, as (left up)(down right): (models, p, q)."""
    return (left @ factors.up) @ (factors.down @ right)


def energy(factors: Factors) -> Tensor:
    """The squared Frobenius norm of each dW (models,), as sum((up^T up) * (down down^T))."""
    return ((factors.up.mT @ factors.up) * (factors.down @ factors.down.mT)).sum((1, 2)).clamp_min(0)


def output_spectrum(factors: Factors, weights: Tensor) -> Tensor:
    """The weighted sum over models of dW dW^T (out, out)."""
    inner = factors.down @ factors.down.mT  # (models, rank, rank)
    return torch.einsum("nor,nrs,nps,n->op", factors.up, inner, factors.up, weights)


def input_spectrum(factors: Factors, weights: Tensor) -> Tensor:
    """The weighted sum over models of dW^T dW (in, in)."""
    inner = factors.up.mT @ factors.up
    return torch.einsum("nri,nrs,nsj,n->ij", factors.down, inner, factors.down, weights)
