"""LoKr: dW = kron(w1, w2); each of the two operands is a full matrix or a low-rank product.

kron(B1 A1, B2 A2) = kron(B1, B2) kron(A1, A2), so the factors of dW are Kronecker products of the operands' factors. A
full matrix is its product with the identity of its smaller side. Where their rank is high, the product is computed from
the operands. Source: LyCORIS ``modules/lokr.py`` and ``functional/lokr.py``.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor

from loradex.retrieval.lora.factors.common import (
    MAX_FACTOR_SIZE,
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
from loradex.retrieval.lora.factors.kronecker import KroneckerUpdate, kron
from loradex.retrieval.lora.factors.lora import apply_core
from loradex.retrieval.lora.update import LayerUpdate, Update

MAX_FACTORS_RANK: Final = 32  # of dW; beyond it products of the operands are faster
MAX_FACTORS_SHARE: Final = 4  # of the numbers in the operands, up to which factors of any rank are small


def measure(where: str, shapes: Mapping[str, Shape]) -> UpdateSize:
    """Size of an update from w1 (a, b), w2 (c, d, *kernel), or each as w_a (rows, rank) and w_b (rank, columns)."""
    first, second = measure_operand(where, shapes, "1"), measure_operand(where, shapes, "2")
    return checked_size(
        where, first.out * second.out, first.width * second.width, first.rank * second.rank, low_rank=False
    )


def measure_operand(where: str, shapes: Mapping[str, Shape], operand: str) -> UpdateSize:
    """Size of one operand, "1" or "2"; its rank never exceeds its smaller side."""
    if f"w{operand}" in shapes:
        require_matrices(where, shapes, f"w{operand}")
        rows, columns = matrix_shape(shapes[f"w{operand}"])
        return checked_size(where, rows, columns, min(rows, columns), low_rank=False)
    require_matrices(where, shapes, f"w{operand}_a", f"w{operand}_b")
    (rows, inner), (rank, columns) = matrix_shape(shapes[f"w{operand}_a"]), matrix_shape(shapes[f"w{operand}_b"])
    if f"t{operand}" in shapes:
        require_matrices(where, shapes, f"t{operand}")
        core = shapes[f"t{operand}"]
        require_equal(where, f"the ranks of factor {operand}", (rows, rank), core[:2])
        rows, inner, rank, columns = inner, rows, rows, columns * matrix_shape(core[1:])[1]
    require_equal(where, f"the ranks of factor {operand}", inner, rank)
    return checked_size(where, rows, columns, min(rank, rows, columns), low_rank=False)


def to_update(parts: Mapping[str, Tensor]) -> Update:
    """The update, in factors if these are small."""
    (down1, up1), (down2, up2) = operands = [operand_factors(parts, operand) for operand in "12"]
    rank, out, width = len(down1) * len(down2), len(up1) * len(up2), down1.shape[1] * down2.shape[1]
    stored = sum(factor.numel() for operand in operands for factor in operand)
    if rank <= MAX_FACTORS_RANK or rank * (out + width) <= MAX_FACTORS_SHARE * stored or out * width > MAX_FACTOR_SIZE:
        return LayerUpdate(kron(down1, down2), kron(up1, up2))
    return KroneckerUpdate(up1 @ down1, up2 @ down2, (len(down1), len(down2)))


def operand_factors(parts: Mapping[str, Tensor], operand: str) -> FactorPair:
    """The factors of one operand, "1" or "2"; it is multiplied out if its rank exceeds a side, as that is smaller."""
    if f"w{operand}" in parts:
        return factor_matrix(as_matrix(parts[f"w{operand}"]))
    up, down = as_matrix(parts[f"w{operand}_a"]), as_matrix(parts[f"w{operand}_b"])
    if f"t{operand}" in parts:
        down, up = apply_core(parts[f"t{operand}"], down), up.T
    return factor_matrix(up @ down) if len(down) > min(len(up), down.shape[1]) else (down, up)


def alpha_divisor(shapes: Mapping[str, Shape]) -> int:
    """The number that alpha is divided by; 0 if both operands are full matrices, as alpha has no effect then."""
    return next((shapes[f"w{operand}_b"][0] for operand in "21" if f"w{operand}" not in shapes), 0)
