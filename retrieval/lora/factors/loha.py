"""LoHa: dW = (w1_a @ w1_b) * (w2_a @ w2_b), entry by entry.

A product of two low-rank matrices by entries has the row-wise Khatri-Rao products of their factors as factors. Their rank is
the product of both ranks, or the smaller side of dW where that is less: there the matrix itself is smaller than those factors.
Source: LyCORIS ``modules/loha.py`` and ``functional/loha.py``.
"""

from collections.abc import Mapping

from torch import Tensor

from loradex.retrieval.lora.factors.common import Pair, Shape, Size, agree, flat, matrix, need, size_of, thin
from loradex.retrieval.lora.factors.lora import core

MATRICES = ("w1_a", "w1_b", "w2_a", "w2_b")


def measure(where: str, shapes: Mapping[str, Shape]) -> Size:
    """Size of w_a (out, rank) and w_b (rank, in, *kernel), twice; with cores t (rank, rank, *kernel) w_a is (rank, out)."""
    need(where, shapes, *MATRICES)
    first, second = (half_size(where, shapes, side) for side in "12")
    agree(where, "the sizes of both halves", (first.out, first.width), (second.out, second.width))
    return size_of(where, first.out, first.width, min(first.rank * second.rank, first.out, first.width))


def half_size(where: str, shapes: Mapping[str, Shape], side: str) -> Size:
    """Size of one half."""
    (rows, columns), (rank, width) = flat(shapes[f"w{side}_a"]), flat(shapes[f"w{side}_b"])
    if f"t{side}" not in shapes:
        agree(where, f"the ranks of half {side}", columns, rank)
        return size_of(where, rows, width, rank)
    need(where, shapes, f"t{side}")
    shape = shapes[f"t{side}"]
    agree(where, f"the ranks of half {side}", (rows, rank), shape[:2])
    return size_of(where, columns, width * flat(shape[1:])[1], rows)


def factors(parts: Mapping[str, Tensor]) -> Pair:
    """The factors down (rank, in) and up (out, rank)."""
    (down1, up1), (down2, up2) = (half(parts, side) for side in "12")
    out, width = len(up1), down1.shape[1]
    if len(down1) * len(down2) > min(out, width):
        return thin((up1 @ down1) * (up2 @ down2))
    up = (up1[:, :, None] * up2[:, None, :]).flatten(1)  # (out, rank1, rank2) -> (out, rank)
    down = (down1[:, None, :] * down2[None, :, :]).flatten(0, 1)  # (rank1, rank2, in) -> (rank, in)
    return down, up


def half(parts: Mapping[str, Tensor], side: str) -> Pair:
    """The factors of one half."""
    first, second = matrix(parts[f"w{side}_a"]), matrix(parts[f"w{side}_b"])
    if f"t{side}" in parts:
        return core(parts[f"t{side}"], second), first.T
    return second, first


def base_rank(shapes: Mapping[str, Shape]) -> int:
    """What alpha is divided by."""
    return shapes["w1_b"][0]
