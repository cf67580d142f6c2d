"""Principal directions of updates at unit norm: on which a sketch projects them, and by which a tree is recognised.

With Z = dW / |dW|, those of the outputs are the leading eigenvectors of the sum of Z Z^T over models, and those of the
inputs the leading eigenvectors of the sum of Z^T Z (two-sided PCA, Ye 2005). The sums are added up batch by batch, so
that models need not be in memory together.
"""

from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.probex.batched_factors import Factors, energy, input_spectrum, output_spectrum, to_float32

BATCH: Final = 256  # models
MIN_ENERGY: Final = 1e-20  # of an update; smaller ones count as zero


class Spectrum:
    """The sums of Z Z^T and Z^T Z of one layer.

    Attributes:
        outputs: (out, out).
        inputs: (in, in).
    """

    __slots__ = ("inputs", "outputs")

    def __init__(self, shape: tuple[int, int]) -> None:
        """Begin with no model, for a layer (out, in)."""
        self.outputs, self.inputs = (torch.zeros(side, side) for side in shape)

    def add(self, factors: Factors) -> None:
        """Add the updates of some models, ``BATCH`` at a time."""
        for start in range(0, len(factors), BATCH):
            batch = to_float32(factors[start : start + BATCH])
            weights = 1 / energy(batch).clamp_min(MIN_ENERGY)
            self.outputs += output_spectrum(batch, weights)
            self.inputs += input_spectrum(batch, weights)

    def add_all(self, other: "Spectrum") -> None:
        """Add the sums over other models."""
        self.outputs += other.outputs
        self.inputs += other.inputs


def principal_directions(factors: Factors, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    """Leading output directions (outputs, out) and input directions (in, inputs) of a layer's updates at unit norm."""
    spectrum = Spectrum(factors.shape)
    spectrum.add(factors)
    output_directions = leading_eigenvectors(spectrum.outputs, outputs).mT.contiguous()
    return output_directions, leading_eigenvectors(spectrum.inputs, inputs)


def leading_eigenvectors(matrix: Tensor, count: int) -> Tensor:
    """The leading eigenvectors (n, count) of a symmetric matrix (n, n); at most n."""
    eigenvectors: Tensor = torch.linalg.eigh(matrix).eigenvectors.flip(1)[:, :count]
    return eigenvectors.contiguous()  # a view would keep all of them in memory
