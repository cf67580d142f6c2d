"""LoKr: dW = kron(w1, w2), where each factor is whole or a product.

kron(B1 A1, B2 A2) = kron(B1, B2) kron(A1, A2), so the factors of dW are Kronecker products of factors. A whole factor is a
product with the identity of its smaller side. Source: LyCORIS ``modules/lokr.py`` and ``functional/lokr.py``.
"""

from collections.abc import Mapping

from torch import Tensor

from loradex.retrieval.lora.factors.common import Pair, Shape, Size, agree, flat, matrix, need, size_of, thin
from loradex.retrieval.lora.factors.lora import core


def measure(where: str, shapes: Mapping[str, Shape]) -> Size:
    """Size of w1 (a, b) and w2 (c, d, *kernel), each perhaps as w_a (side, rank) and w_b (rank, side)."""
    first, second = half_size(where, shapes, "1"), half_size(where, shapes, "2")
    return size_of(where, first.out * second.out, first.width * second.width, first.rank * second.rank)


def half_size(where: str, shapes: Mapping[str, Shape], side: str) -> Size:
    """Size of one factor; its rank is never more than its smaller side."""
    if f"w{side}" in shapes:
        need(where, shapes, f"w{side}")
        rows, columns = flat(shapes[f"w{side}"])
        return size_of(where, rows, columns, min(rows, columns))
    need(where, shapes, f"w{side}_a", f"w{side}_b")
    (rows, inner), (rank, columns) = flat(shapes[f"w{side}_a"]), flat(shapes[f"w{side}_b"])
    if f"t{side}" in shapes:
        need(where, shapes, f"t{side}")
        shape = shapes[f"t{side}"]
        agree(where, f"the ranks of factor {side}", (rows, rank), shape[:2])
        rows, inner, rank, columns = inner, rows, rows, columns * flat(shape[1:])[1]
    agree(where, f"the ranks of factor {side}", inner, rank)
    return size_of(where, rows, columns, min(rank, rows, columns))


def factors(parts: Mapping[str, Tensor]) -> Pair:
    """The factors down (rank, in) and up (out, rank)."""
    (down1, up1), (down2, up2) = half(parts, "1"), half(parts, "2")
    return kron(down1, down2), kron(up1, up2)


def kron(first: Tensor, second: Tensor) -> Tensor:
    """The Kronecker product of two matrices; ``torch.kron`` fails on some transposed ones."""
    return (first[:, None, :, None] * second[None, :, None, :]).flatten(2, 3).flatten(0, 1)


def half(parts: Mapping[str, Tensor], side: str) -> Pair:
    """Factors of one of the two; one whose rank exceeds a side is multiplied out, as that is smaller."""
    if f"w{side}" in parts:
        return thin(matrix(parts[f"w{side}"]))
    up, down = matrix(parts[f"w{side}_a"]), matrix(parts[f"w{side}_b"])
    if f"t{side}" in parts:
        down, up = core(parts[f"t{side}"], down), up.T
    return thin(up @ down) if len(down) > min(len(up), down.shape[1]) else (down, up)


def base_rank(shapes: Mapping[str, Shape]) -> int:
    """What alpha is divided by; 0 where both factors are whole, as then it has no effect."""
    return next((shapes[f"w{side}_b"][0] for side in "21" if f"w{side}" not in shapes), 0)
