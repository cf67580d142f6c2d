"""Updates whose rows are made some at a time: products by entries, as of LoHa, and full matrices.

Their rank is too high for factors, which would be larger than the layer; so all is computed from blocks of rows, and
the layer is never in memory as a whole.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from loradex.retrieval.lora.factors.common import FactorPair, factor_matrix
from loradex.retrieval.lora.update import (
    BLOCK_ROWS,
    Hash,
    LayerUpdate,
    Ranges,
    fold,
    leading_directions,
    select_rows,
)


class RowwiseUpdate(ABC):
    """An update by blocks of its rows; the properties are those of ``loradex.retrieval.lora.update.Update``."""

    __slots__ = ()

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the layer's weight."""

    @abstractmethod
    def columns(self, start: int, end: int) -> Tensor:
        """The rows of dW from ``start`` to ``end``, transposed (in, rows)."""

    def blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        """Start and end of each block of rows, and these rows transposed (in, rows)."""
        out = self.shape[0]
        for start in range(0, out, BLOCK_ROWS):
            end = min(start + BLOCK_ROWS, out)
            yield start, end, self.columns(start, end)

    def times(self, right: Tensor) -> Tensor:
        """As ``Update.times``."""
        return torch.cat([columns.mT @ right for _, _, columns in self.blocks()])

    def transposed_times(self, left: Tensor) -> Tensor:
        """As ``Update.transposed_times``."""
        product = left.new_zeros(self.shape[1], left.shape[1])
        for start, end, columns in self.blocks():
            product.addmm_(columns, left[start:end])
        return product

    def energy(self) -> float:
        """As ``Update.energy``."""
        return sum(squared_norm(columns) for _, _, columns in self.blocks())

    def gram(self) -> Tensor:
        """As ``Update.gram``."""
        return torch.cat([self.times(columns).mT for _, _, columns in self.blocks()])

    def transposed_gram(self) -> Tensor:
        """As ``Update.transposed_gram``."""
        gram = torch.zeros(self.shape[1], self.shape[1])
        for _, _, columns in self.blocks():
            gram.addmm_(columns, columns.mT)
        return gram

    def leading(self, rank: int) -> LayerUpdate:
        """As ``Update.leading``, by subspace iteration."""
        return leading_directions(lambda: (columns.mT for _, _, columns in self.blocks()), self.shape, rank)

    def fold_into(self, table: Tensor, rows: Hash, columns: Hash) -> float:
        """As ``Update.fold_into``."""
        energy = 0.0
        for start, end, block in self.blocks():
            energy += squared_norm(block)
            folded = fold(block, columns, len(table)).mT.contiguous()
            table.index_add_(0, rows[0][start:end], folded.mul_(rows[1][start:end, None]))
        return energy


def squared_norm(matrix: Tensor) -> float:
    """Squared Frobenius norm; in float64 where squares of the numbers are beyond float32."""
    norm = float(torch.linalg.vector_norm(matrix))
    return (norm if norm and math.isfinite(norm) else float(torch.linalg.vector_norm(matrix, dtype=torch.float64))) ** 2


@dataclass(frozen=True, slots=True)
class MatrixUpdate(RowwiseUpdate):
    """A full matrix (out, in)."""

    matrix: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """As ``Update.shape``."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def rank(self) -> int:
        """The smaller side: the rank is full."""
        return min(self.matrix.shape)

    @property
    def down(self) -> Tensor:
        """As ``Update.down``: dW, or the identity of its smaller side."""
        return factor_matrix(self.matrix)[0]

    @property
    def up(self) -> Tensor:
        """As ``Update.up``: dW, or the identity of its smaller side."""
        return factor_matrix(self.matrix)[1]

    @property
    def largest(self) -> float:
        """As ``Update.largest``."""
        return float(self.matrix.abs().max())

    def columns(self, start: int, end: int) -> Tensor:
        """As ``RowwiseUpdate.columns``."""
        return self.matrix[start:end].mT

    def part(self, rows: Ranges, scale: float) -> "MatrixUpdate":
        """As ``Update.part``."""
        return MatrixUpdate(select_rows(self.matrix, rows) * scale)

    def to(self, like: Tensor) -> "MatrixUpdate":
        """As ``Update.to``."""
        return MatrixUpdate(self.matrix.to(like))


@dataclass(frozen=True, slots=True)
class HadamardUpdate(RowwiseUpdate):
    """The product by entries of two low-rank products, up1 @ down1 and up2 @ down2.

    Attributes:
        first: down1 (rank1, in) and up1 (out, rank1).
        second: down2 (rank2, in) and up2 (out, rank2).
    """

    first: FactorPair
    second: FactorPair

    @property
    def shape(self) -> tuple[int, int]:
        """As ``Update.shape``."""
        return len(self.first[1]), self.first[0].shape[1]

    @property
    def rank(self) -> int:
        """The product of both ranks, or the smaller side."""
        return min(len(self.first[0]) * len(self.second[0]), *self.shape)

    @property
    def down(self) -> Tensor:
        """As ``Update.down``: the row-wise Khatri-Rao product of both, or of dW if that is smaller."""
        (down1, _), (down2, _) = self.first, self.second
        if len(down1) * len(down2) > self.rank:
            return factor_matrix(self._dense())[0]
        return (down1[:, None, :] * down2[None, :, :]).flatten(0, 1)  # (rank1, rank2, in) -> (rank, in)

    @property
    def up(self) -> Tensor:
        """As ``Update.up``: the row-wise Khatri-Rao product of both, or of dW if that is smaller."""
        (_, up1), (_, up2) = self.first, self.second
        if up1.shape[1] * up2.shape[1] > self.rank:
            return factor_matrix(self._dense())[1]
        return (up1[:, :, None] * up2[:, None, :]).flatten(1)  # (out, rank1, rank2) -> (out, rank)

    def _dense(self) -> Tensor:
        return self.columns(0, self.shape[0]).mT

    @property
    def largest(self) -> float:
        """As ``Update.largest``, of the factors and of their row-wise Khatri-Rao products."""
        numbers = [[factor.abs().max() for factor in half] for half in (self.first, self.second)]
        products = [one * other for one, other in zip(*numbers, strict=True)]
        return float(torch.stack([*numbers[0], *numbers[1], *products]).max())

    def columns(self, start: int, end: int) -> Tensor:
        """As ``RowwiseUpdate.columns``."""
        (down1, up1), (down2, up2) = self.first, self.second
        return (down1.mT @ up1[start:end].mT).mul_(down2.mT @ up2[start:end].mT)

    def part(self, rows: Ranges, scale: float) -> "HadamardUpdate":
        """As ``Update.part``."""
        (down1, up1), (down2, up2) = self.first, self.second
        return HadamardUpdate((down1, select_rows(up1, rows) * scale), (down2, select_rows(up2, rows)))

    def to(self, like: Tensor) -> "HadamardUpdate":
        """As ``Update.to``."""
        (down1, up1), (down2, up2) = self.first, self.second
        return HadamardUpdate((down1.to(like), up1.to(like)), (down2.to(like), up2.to(like)))
