"""The weight update of one layer, in factor form."""

from dataclasses import dataclass

from torch import Tensor


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
