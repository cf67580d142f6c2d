"""The weight update of one layer: in low-rank factors, or as a product of its parts that is not multiplied out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

ITERATIONS: Final = 2  # of subspace iteration
BLOCK_ROWS: Final = 64  # rows of dW in memory at a time
Ranges = Sequence[tuple[int, int]]  # of rows, as (start, end)
Hash = tuple[Tensor, Tensor]  # of each index of a side (n,): its bucket, int64, and its sign, float32


class Update(Protocol):
    """dW (out, in) of one layer, with the scale within; kernels of convolutions are flattened, (out, in * k * k).

    ``up`` and ``down`` of any update are exact factors. Those of a ``LayerUpdate`` are small; those of others are made
    on each access, and as large as the layer, so that readers take products instead.
    """

    @property
    def down(self) -> Tensor:
        """(rank, in), float32."""

    @property
    def up(self) -> Tensor:
        """(out, rank), float32; dW = up @ down."""

    @property
    def rank(self) -> int:
        """Rank of the factors."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the layer's weight."""

    @property
    def largest(self) -> float:
        """A bound on the numbers of the factors; not finite if a part is not."""

    def part(self, rows: Ranges, scale: float) -> "Update":
        """The rows of dW in some ranges, in their order, times a scale."""

    def to(self, like: Tensor) -> "Update":
        """The update with the data type and on the device of a tensor."""

    def times(self, right: Tensor) -> Tensor:
        """DW @ right (out, k), of a thin matrix (in, k)."""

    def transposed_times(self, left: Tensor) -> Tensor:
        """dWᵀ @ left (in, k), of a thin matrix (out, k)."""

    def energy(self) -> float:
        """Squared Frobenius norm, summed in float64."""

    def gram(self) -> Tensor:
        """DW dWᵀ (out, out)."""

    def transposed_gram(self) -> Tensor:
        """dWᵀ dW (in, in)."""

    def leading(self, rank: int) -> "LayerUpdate":
        """At least the leading ``rank`` singular directions, as factors."""

    def fold_into(self, table: Tensor, rows: Hash, columns: Hash) -> float:
        """Add dW with both sides hashed to a table (buckets, buckets), in place, and return the energy.

        Entry (o, i) is added, times the signs of o and i, where the buckets of o and i meet. Which of the two sides has
        the rows of the table is left open: sums over entries whose row and column add up to one number do not tell.
        """


@dataclass(frozen=True, slots=True)
class LayerUpdate:
    """dW = up @ down for one layer, with the scale folded into ``up``.

    Attributes:
        down: (rank, in), float32; kernels of convolutions are flattened, (rank, in * k * k).
        up: (out, rank), float32.
    """

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        """Rank of the factors."""
        return self.up.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the layer's weight."""
        return self.up.shape[0], self.down.shape[1]

    @property
    def largest(self) -> float:
        """The largest number of the factors."""
        return float(torch.maximum(self.down.abs().max(), self.up.abs().max()))

    def part(self, rows: Ranges, scale: float) -> "LayerUpdate":
        """As ``Update.part``."""
        return LayerUpdate(self.down, select_rows(self.up, rows) * scale)

    def to(self, like: Tensor) -> "LayerUpdate":
        """As ``Update.to``."""
        return LayerUpdate(self.down.to(like), self.up.to(like))

    def times(self, right: Tensor) -> Tensor:
        """As ``Update.times``."""
        return self.up @ (self.down @ right)

    def transposed_times(self, left: Tensor) -> Tensor:
        """As ``Update.transposed_times``."""
        return self.down.mT @ (self.up.mT @ left)

    def energy(self) -> float:
        """As ``Update.energy``, as sum((upᵀ up) * (down downᵀ))."""
        return float(((self.up.mT @ self.up).double() * (self.down @ self.down.mT)).sum())

    def gram(self) -> Tensor:
        """As ``Update.gram``."""
        return self.up @ (self.down @ self.down.mT) @ self.up.mT

    def transposed_gram(self) -> Tensor:
        """As ``Update.transposed_gram``."""
        return self.down.mT @ (self.up.mT @ self.up) @ self.down

    def leading(self, rank: int) -> "LayerUpdate":
        """The update itself."""
        return self

    def fold_into(self, table: Tensor, rows: Hash, columns: Hash) -> float:
        """As ``Update.fold_into``."""
        table.addmm_(fold(self.up, rows, len(table)), fold(self.down.mT, columns, len(table)).mT)
        return self.energy()


def fold(matrix: Tensor, hashed: Hash, size: int) -> Tensor:
    """The count sketches (size, k) of the columns of a matrix (n, k)."""
    buckets, signs = hashed
    return matrix.new_zeros(size, matrix.shape[1]).index_add_(0, buckets, matrix * signs[:, None])


def select_rows(matrix: Tensor, rows: Ranges) -> Tensor:
    """The rows of a matrix in these ranges, in their order."""
    return matrix if tuple(rows) == ((0, len(matrix)),) else torch.cat([matrix[start:end] for start, end in rows])


def leading_directions(blocks: Callable[[], Iterator[Tensor]], shape: tuple[int, int], rank: int) -> LayerUpdate:
    """The leading ``rank`` directions of a matrix; all of it if a side is no longer than ``rank``.

    Found by subspace iteration (Halko, Martinsson and Tropp 2011, algorithm 4.4) over some rows at a time.

    Args:
        blocks: called once for each pass over the matrix, yields blocks of its rows (rows, in).
        shape: (out, in) of the matrix.
        rank: number of directions.
    """
    width = shape[1]
    right = torch.randn(width, min(rank, *shape), generator=torch.Generator().manual_seed(0))
    for _ in range(ITERATIONS):
        right = sum((block.mT @ (block @ right) for block in blocks()), torch.zeros_like(right))
        right = torch.linalg.qr(right.nan_to_num())[0]
    return LayerUpdate(right.mT.contiguous(), torch.cat([block @ right for block in blocks()]))
