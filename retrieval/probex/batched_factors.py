"""Updates of one layer in many models, as factors, and the linear algebra on them that never multiplies them out.

Notation of ProbeX (Horwitz et al., CVPR 2025, section 4): X is the update dW = up @ down (out x in), U the probes
(in x r_U), V the shared projection (r_V x out). A batch mixes ranks by zero padding, which is exact.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loradex.retrieval.lora.update import LayerUpdate, Update


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
    def stack(cls, updates: Sequence[Update]) -> "Factors":
        """Pad updates of one layer to the largest rank, in float32; ``Products`` if one has no small factors."""
        low_rank = [update for update in updates if isinstance(update, LayerUpdate)]
        return padded(low_rank) if len(low_rank) == len(updates) else Products(updates)

    @classmethod
    def of_matrices(cls, matrices: Tensor) -> "Factors":
        """Dense matrices (models, out, in) as factors: themselves and the identity of their shorter side."""
        count, out, width = matrices.shape
        identity = torch.eye(min(out, width), dtype=matrices.dtype).expand(count, -1, -1)
        return cls(matrices, identity) if out <= width else cls(identity, matrices)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the layer."""
        return self.up.shape[1], self.down.shape[2]

    @property
    def largest(self) -> Tensor:
        """The largest number in the factors of each model (models,)."""
        return torch.maximum(self.up.abs().amax((1, 2)), self.down.abs().amax((1, 2)))

    def __len__(self) -> int:
        """Return the number of models."""
        return len(self.down)

    def __getitem__(self, rows: Tensor | slice) -> "Factors":
        """Select models."""
        return Factors(self.down[rows], self.up[rows])

    def to(self, device: str) -> "Factors":
        """Return the factors on a device."""
        return Factors(self.down.to(device), self.up.to(device))


class Products(Factors):
    """Updates of one layer of which some have no small factors, each by its products with thin matrices."""

    __slots__ = ("updates",)
    updates: Sequence[Update]

    def __init__(self, updates: Sequence[Update]) -> None:
        """Keep the updates."""
        object.__setattr__(self, "updates", updates)

    @property
    def down(self) -> Tensor:
        """(models, rank, in), made on each access; of a full rank as large as the layers."""
        return padded(self.updates).down

    @property
    def up(self) -> Tensor:
        """(models, out, rank), made on each access; of a full rank as large as the layers."""
        return padded(self.updates).up

    @property
    def shape(self) -> tuple[int, int]:
        """As ``Factors.shape``."""
        return self.updates[0].shape

    @property
    def largest(self) -> Tensor:
        """As ``Factors.largest``."""
        return torch.tensor([update.largest for update in self.updates])

    def __len__(self) -> int:
        """As ``Factors``."""
        return len(self.updates)

    def __getitem__(self, rows: Tensor | slice) -> "Products":
        """As ``Factors``."""
        return Products([self.updates[row] for row in torch.arange(len(self))[rows].tolist()])

    def to(self, device: str) -> "Products":
        """As ``Factors``."""
        return Products([update.to(torch.empty(0, device=device)) for update in self.updates])

    def times(self, right: Tensor) -> Tensor:
        """X ``right`` of each model (models, out, k)."""
        return torch.stack([update.times(right) for update in self.updates])

    def transposed_times(self, left: Tensor) -> Tensor:
        """Xᵀ ``left`` of each model (models, in, k)."""
        return torch.stack([update.transposed_times(left) for update in self.updates])


def padded(updates: Sequence[Update]) -> Factors:
    """The factors of updates of one layer, padded to the largest rank among them, in float32."""
    rank = max(update.rank for update in updates)
    down = torch.zeros(len(updates), rank, updates[0].shape[1])
    up = torch.zeros(len(updates), updates[0].shape[0], rank)
    for row, update in enumerate(updates):
        down[row, : update.rank] = update.down
        up[row, :, : update.rank] = update.up
    return Factors(down, up)


LayerFactors = Mapping[str, Factors]  # the updates of some models, by layer


def to_float32(factors: Factors) -> Factors:
    """Return the factors in float32."""
    if isinstance(factors, Products):
        return factors
    return Factors(factors.down.float(), factors.up.float())


def stack_layers(models: Sequence[Mapping[str, Update]], layers: Sequence[str]) -> dict[str, Factors]:
    """Stack the named layers of many models, each padded to its largest rank."""
    return {layer: Factors.stack([model[layer] for model in models]) for layer in layers}


def project(factors: Factors, left: Tensor) -> Factors:
    """``left`` (p, out) X of each model, as factors."""
    if isinstance(factors, Products):
        return Factors(factors.transposed_times(left.mT).mT, torch.eye(len(left)).to(left).expand(len(factors), -1, -1))
    return Factors(factors.down, left @ factors.up)


def bilinear(factors: Factors, left: Tensor, right: Tensor) -> Tensor:
    """``left`` (p, out) X ``right`` (in, q) of each model (models, p, q), as (left up)(down right)."""
    projected = project(factors, left)
    return projected.up @ (projected.down @ right)


def energy(factors: Factors) -> Tensor:
    """Squared Frobenius norm |X|^2 of each model (models,), as sum((up^T up) * (down down^T))."""
    if isinstance(factors, Products):
        return torch.tensor([update.energy() for update in factors.updates])
    return ((factors.up.mT @ factors.up) * (factors.down @ factors.down.mT)).sum((1, 2)).clamp_min(0)


def output_spectrum(factors: Factors, weights: Tensor) -> Tensor:
    """Sum over models of X X^T (out, out), weighted by ``weights`` (models,)."""
    if isinstance(factors, Products):
        return sum_of(update.gram() * weight for update, weight in zip(factors.updates, weights, strict=True))
    inner = factors.down @ factors.down.mT * weights[:, None, None]  # (models, rank, rank)
    return summed_product(factors.up @ inner, factors.up)


def input_spectrum(factors: Factors, weights: Tensor) -> Tensor:
    """Sum over models of X^T X (in, in), weighted by ``weights`` (models,)."""
    if isinstance(factors, Products):
        return sum_of(
            update.transposed_gram() * weight for update, weight in zip(factors.updates, weights, strict=True)
        )
    inner = factors.up.mT @ factors.up * weights[:, None, None]
    return summed_product(factors.down.mT @ inner, factors.down.mT)


def summed_product(first: Tensor, second: Tensor) -> Tensor:
    """Sum over models of A B^T (n, n) for A and B (models, n, rank), as one product: nothing is made for each model."""
    return first.transpose(0, 1).flatten(1) @ second.transpose(0, 1).flatten(1).mT


def sum_of(matrices: Iterator[Tensor]) -> Tensor:
    """The sum of at least one matrix, with one more of them in memory at a time."""
    total = next(matrices)
    for matrix in matrices:
        total = total + matrix
    return total
