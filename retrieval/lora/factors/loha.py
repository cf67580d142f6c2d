"""LoHa: dW = (w1_a @ w1_b) * (w2_a @ w2_b), a product by entries.

Its factors are the row-wise Khatri-Rao products of the factors of both halves; their rank is the product of the halves'
ranks. Where that exceeds the smaller side of dW, the matrix itself is smaller than those factors, and is taken instead.
Source: LyCORIS ``modules/loha.py`` and ``functional/loha.py``.
"""

from collections.abc import Mapping

from torch import Tensor

from loradex.retrieval.lora.factors.common import (
    FactorPair,
    Shape,
    UpdateSize,
    as_matrix,
    checked_size,
    factor_matrix,
    matrix_shape,
    require_equal,
    require_matrices,
)
from loradex.retrieval.lora.factors.lora import apply_core

MATRICES = ("w1_a", "w1_b", "w2_a", "w2_b")


def measure(where: str, shapes: Mapping[str, Shape]) -> UpdateSize:
    """Size of an update from two halves, each w_a (out, rank) and w_b (rank, in, *kernel).

    A half with a core t (rank, rank, *kernel) has w_a (rank, out) and w_b (rank, in).
    """
    require_matrices(where, shapes, *MATRICES)
    first, second = (measure_half(where, shapes, half) for half in "12")
    require_equal(where, "the sizes of both halves", (first.out, first.width), (second.out, second.width))
    return checked_size(where, first.out, first.width, min(first.rank * second.rank, first.out, first.width))


def measure_half(where: str, shapes: Mapping[str, Shape], half: str) -> UpdateSize:
    """Size of one half, "1" or "2"."""
    (rows, columns), (rank, width) = matrix_shape(shapes[f"w{half}_a"]), matrix_shape(shapes[f"w{half}_b"])
    if f"t{half}" not in shapes:
        require_equal(where, f"the ranks of half {half}", columns, rank)
        return checked_size(where, rows, width, rank)
    require_matrices(where, shapes, f"t{half}")
    core = shapes[f"t{half}"]
    require_equal(where, f"the ranks of half {half}", (rows, rank), core[:2])
    return checked_size(where, columns, width * matrix_shape(core[1:])[1], rows)


def to_factors(parts: Mapping[str, Tensor]) -> FactorPair:
    """The factors down (rank, in) and up (out, rank)."""
    (down1, up1), (down2, up2) = (half_factors(parts, half) for half in "12")
    out, width = len(up1), down1.shape[1]
    if len(down1) * len(down2) > min(out, width):
        return factor_matrix((up1 @ down1) * (up2 @ down2))
    up = (up1[:, :, None] * up2[:, None, :]).flatten(1)  # (out, rank1, rank2) -> (out, rank)
    down = (down1[:, None, :] * down2[None, :, :]).flatten(0, 1)  # (rank1, rank2, in) -> (rank, in)
    return down, up


def half_factors(parts: Mapping[str, Tensor], half: str) -> FactorPair:
    """The factors of one half, "1" or "2"."""
    first, second = as_matrix(parts[f"w{half}_a"]), as_matrix(parts[f"w{half}_b"])
    if f"t{half}" in parts:
        return apply_core(parts[f"t{half}"], second), first.T
    return second, first


def alpha_divisor(shapes: Mapping[str, Shape]) -> int:
    """The number that alpha is divided by."""
    return shapes["w1_b"][0]
