"""Kronecker products, as of LoKr, from their two operands.

An entry of kron(A, B) at ((o1, o2), (i1, i2)) is A[o1, i1] B[o2, i2]. So a product with a thin matrix is one with A and
one with B, norms multiply, and the singular values of kron(A, B) are the products of those of A and B, with Kronecker
products of their singular vectors (Van Loan 2000, The ubiquitous Kronecker product).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.lora.factors.common import FactorPair, factor_matrix
from loradex.retrieval.lora.update import BLOCK_ROWS, Hash, LayerUpdate, Ranges, leading_directions, select_rows

FOLDED_NUMBERS: Final = 2**18  # in memory at a time, of hashed rows


@dataclass(frozen=True, slots=True)
class KroneckerUpdate:
    """dW = kron(first, second), or some of its rows.

    Attributes:
        first: (a, b).
        second: (c, d).
        ranks: of both operands, at most.
        kept: the rows that the update has of kron(first, second), (out,), int64; None for all.
    """

    first: Tensor
    second: Tensor
    ranks: tuple[int, int]
    kept: Tensor | None = None

    @property
    def rank(self) -> int:
        """The product of the operands' ranks."""
        return min(self.ranks[0], *self.first.shape) * min(self.ranks[1], *self.second.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """As ``Update.shape``."""
        (a, b), (c, d) = self.first.shape, self.second.shape
        return a * c if self.kept is None else len(self.kept), b * d

    @property
    def largest(self) -> float:
        """As ``Update.largest``, of the operands and of their product."""
        first, second = self.first.abs().max(), self.second.abs().max()
        return float(torch.stack([first, second, first * second]).max())

    @property
    def down(self) -> Tensor:
        """As ``Update.down``."""
        return kron(factor_operand(self.first, self.ranks[0])[0], factor_operand(self.second, self.ranks[1])[0])

    @property
    def up(self) -> Tensor:
        """As ``Update.up``."""
        up1, up2 = (
            factor_operand(operand, rank)[1]
            for operand, rank in zip((self.first, self.second), self.ranks, strict=True)
        )
        return self._keep(kron(up1, up2))

    def _keep(self, matrix: Tensor) -> Tensor:
        return matrix if self.kept is None else matrix[self.kept]

    def _indices(self) -> Tensor:
        """The kept rows (out,)."""
        return torch.arange(len(self.first) * len(self.second)) if self.kept is None else self.kept

    def _spread(self, matrix: Tensor) -> Tensor:
        """A matrix (out, k) in the rows of the whole product, with zeros in those that are not kept."""
        if self.kept is None:
            return matrix
        whole = matrix.new_zeros(len(self.first) * len(self.second), *matrix.shape[1:])
        whole[self.kept] = matrix
        return whole

    def part(self, rows: Ranges, scale: float) -> "KroneckerUpdate":
        """As ``Update.part``; rows of ``first`` that no range needs are dropped."""
        kept, step = select_rows(self._indices(), rows), len(self.second)
        start, end = int(kept.min()) // step, int(kept.max()) // step + 1
        kept = kept - start * step
        whole = torch.equal(kept, torch.arange((end - start) * step))
        return KroneckerUpdate(self.first[start:end] * scale, self.second, self.ranks, None if whole else kept)

    def to(self, like: Tensor) -> "KroneckerUpdate":
        """As ``Update.to``."""
        kept = None if self.kept is None else self.kept.to(like.device)
        return KroneckerUpdate(self.first.to(like), self.second.to(like), self.ranks, kept)

    def times(self, right: Tensor) -> Tensor:
        """As ``Update.times``."""
        return self._keep(kron_times(self.first, self.second, right))

    def transposed_times(self, left: Tensor) -> Tensor:
        """As ``Update.transposed_times``."""
        return kron_times(self.first.mT, self.second.mT, self._spread(left))

    def energy(self) -> float:
        """As ``Update.energy``, from the squared lengths of the operands' rows."""
        first, second = (operand.double().square().sum(1) for operand in (self.first, self.second))
        return float(self._keep(torch.outer(first, second).flatten()).sum())

    def gram(self) -> Tensor:
        """As ``Update.gram``: kron(A Aᵀ, B Bᵀ)."""
        whole = kron(self.first @ self.first.mT, self.second @ self.second.mT)
        return whole if self.kept is None else whole[self.kept][:, self.kept]

    def transposed_gram(self) -> Tensor:
        """As ``Update.transposed_gram``: kron(Aᵀ A, Bᵀ B) if all rows are kept."""
        if self.kept is None:
            return kron(self.first.mT @ self.first, self.second.mT @ self.second)
        gram = torch.zeros(self.shape[1], self.shape[1])
        for rows in self._row_blocks():
            gram.addmm_(rows.mT, rows)
        return gram

    def leading(self, rank: int) -> LayerUpdate:
        """As ``Update.leading``: those of the largest products of singular values."""
        if self.kept is not None:
            return leading_directions(self._row_blocks, self.shape, rank)
        (u1, s1, v1), (u2, s2, v2) = (
            torch.linalg.svd(operand, full_matrices=False) for operand in (self.first, self.second)
        )
        best = torch.outer(s1, s2).flatten().topk(min(rank, self.rank))
        one, other = best.indices // len(s2), best.indices % len(s2)
        up = (u1[:, None, one] * u2[None, :, other]).flatten(0, 1)
        return LayerUpdate((v1[one, :, None] * v2[other, None, :]).flatten(1), up * best.values)

    def fold_into(self, table: Tensor, rows: Hash, columns: Hash) -> float:
        """As ``Update.fold_into``.

        The rows of the second operand are hashed at each of the b places that they have in a row of dW; a row of dW is
        the sum of these by a row of the first operand.
        """
        first, second = self.first, self.second
        rows = self._spread(rows[0]), self._spread(rows[1])  # signs of rows that are not kept are 0
        if len(rows[0]) > len(columns[0]):
            first, second, rows, columns = first.mT, second.mT, columns, rows
        if first.shape[1] > second.shape[1]:  # kron(B, A) has the same entries, with the indices of each side reordered
            rows, columns = (
                reordered(rows, len(first), len(second)),
                reordered(columns, first.shape[1], second.shape[1]),
            )
            first, second = second, first
        (a, b), size = first.shape, len(table)
        row_buckets, row_signs = (numbers.unflatten(0, (a, -1)).mT.contiguous() for numbers in rows)  # (c, a)
        buckets = (columns[0].unflatten(0, (b, -1)) + size * torch.arange(b)[:, None]).flatten()
        signs = columns[1].unflatten(0, (b, -1))
        step = max(1, FOLDED_NUMBERS // (max(a, b) * size))
        for start in range(0, len(second), step):
            places = (second[start : start + step, None, :] * signs).flatten(1)  # (rows, b * d)
            hashed = places.new_zeros(len(places), b * size).index_add_(1, buckets, places).unflatten(1, (b, size))
            sums = (row_signs[start : start + step, :, None] * first) @ hashed  # (rows, a, size)
            table.index_add_(0, row_buckets[start : start + step].flatten(), sums.flatten(0, 1))
        return self.energy()

    def _row_blocks(self) -> Iterator[Tensor]:
        """The rows of dW, some at a time (rows, in)."""
        step = len(self.second)
        for rows in self._indices().split(BLOCK_ROWS):
            yield (self.first[rows // step][:, :, None] * self.second[rows % step][:, None, :]).flatten(1)


def factor_operand(matrix: Tensor, rank: int) -> FactorPair:
    """Exact factors of a matrix whose rank is at most ``rank``."""
    if rank >= min(matrix.shape):
        return factor_matrix(matrix)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return right[:rank], left[:, :rank] * values[:rank]


def reordered(hashed: Hash, outer: int, inner: int) -> Hash:
    """The hash of a side with its inner index before its outer one."""
    buckets, signs = (numbers.unflatten(0, (outer, inner)).mT.flatten() for numbers in hashed)
    return buckets, signs


def kron(first: Tensor, second: Tensor) -> Tensor:
    """The Kronecker product of two matrices; ``torch.kron`` fails on some transposed ones."""
    return (first[:, None, :, None] * second[None, :, None, :]).flatten(2, 3).flatten(0, 1)


def kron_times(first: Tensor, second: Tensor, right: Tensor) -> Tensor:
    """The product (a * c, k) of kron(first, second) with a matrix (b * d, k), in the cheaper order."""
    (a, b), (c, d), k = first.shape, second.shape, right.shape[1]
    if b * c * (d + a) < a * d * (b + c):
        inner = second @ right.reshape(b, d, k)  # (b, c, k)
        return (first @ inner.reshape(b, c * k)).reshape(a * c, k)
    inner = (first @ right.reshape(b, d * k)).reshape(a, d, k)
    return (second @ inner).reshape(a * c, k)
