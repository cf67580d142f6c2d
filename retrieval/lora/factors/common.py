"""What the algorithms have in common: tensors as matrices, exact factors of a full matrix, and checks of shapes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileUnsupported

Shape = tuple[int, ...]
FactorPair = tuple[Tensor, Tensor]  # down (rank, in), up (out, rank)
MAX_RANK: Final = 4096
MAX_SIDE: Final = 2**20
MAX_FACTOR_SIZE: Final = 2**27  # numbers: 512 MiB


@dataclass(frozen=True, slots=True)
class UpdateSize:
    """The size of an update: dW is (out, width), and its factors are of rank ``rank``."""

    out: int
    width: int
    rank: int


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """Shape of a tensor as a matrix, with flattened kernels: (out, in, k, k) becomes (out, in * k * k)."""
    return shape[0], math.prod(shape[1:])


def as_matrix(tensor: Tensor) -> Tensor:
    """The tensor as a matrix, float32, with flattened kernels."""
    return tensor.float().flatten(1)


def factor_matrix(matrix: Tensor) -> FactorPair:
    """Exact factors of a full matrix: itself and the identity of its smaller side."""
    out, width = matrix.shape
    return (matrix, torch.eye(out)) if out <= width else (torch.eye(width), matrix)


def checked_size(where: str, out: int, width: int, rank: int, low_rank: bool = True) -> UpdateSize:
    """A size within the bounds; an update that is no low-rank product may also have any rank if the layer is no larger.

    Raises:
        FileCorrupt: a side or the rank is 0.
        FileUnsupported: a side, the rank or a factor is too large.
    """
    if min(out, width, rank) < 1:
        raise FileCorrupt(
            f"{where}: expected a rank and sides from 1, found rank {rank} for {out} x {width}; save it again"
        )
    small_factors = rank <= MAX_RANK and max(out, width) * rank <= MAX_FACTOR_SIZE
    if max(out, width) > MAX_SIDE or not (small_factors or (not low_rank and out * width <= MAX_FACTOR_SIZE)):
        raise FileUnsupported(
            f"{where}: expected sides up to {MAX_SIDE}, a rank up to {MAX_RANK} and {MAX_FACTOR_SIZE} numbers a factor, "
            f"found rank {rank} for {out} x {width}; choose another file"
        )
    return UpdateSize(out, width, rank)


def require_matrices(where: str, shapes: Mapping[str, Shape], *roles: str) -> None:
    """Refuse a module that lacks one of these parts, or has one that is not a matrix.

    Raises:
        FileCorrupt: naming the parts.
    """
    missing = [role for role in roles if role not in shapes]
    if missing:
        raise FileCorrupt(
            f"{where}: expected the parts {', '.join(roles)}, found only {', '.join(sorted(shapes))}; save it again"
        )
    for role in roles:
        if len(shapes[role]) < 2:
            raise FileCorrupt(f"{where}: expected a matrix as {role}, found shape {shapes[role]}; save it again")


def require_equal(where: str, what: str, first: Shape | int, second: Shape | int) -> None:
    """Refuse parts whose sizes do not agree.

    Raises:
        FileCorrupt: naming both sizes.
    """
    if first != second:
        raise FileCorrupt(f"{where}: expected {what} to agree, found {first} and {second}; save it again")
