"""LoHa: dW = (w1_a @ w1_b) * (w2_a @ w2_b), a product by entries.

Its factors are the row-wise Khatri-Rao products of the factors of both halves; their rank is the product of the halves'
ranks. Where that is high, the product is computed from the halves, some rows at a time.
Source: LyCORIS ``modules/loha.py`` and ``functional/loha.py``.
"""

from collections.abc import Mapping

from torch import Tensor

from loradex.retrieval.lora.factors.common import (
    MAX_FACTOR_SIZE,
    FactorPair,
    Shape,
    UpdateSize,
    as_matrix,
    checked_size,
    matrix_shape,
    require_equal,
    require_matrices,
)
from loradex.retrieval.lora.factors.lora import apply_core
from loradex.retrieval.lora.factors.rowwise import HadamardUpdate
from loradex.retrieval.lora.update import LayerUpdate, Update

MATRICES = ("w1_a", "w1_b", "w2_a", "w2_b")


def measure(where: str, shapes: Mapping[str, Shape]) -> UpdateSize:
    """Size of an update from two halves, each w_a (out, rank) and w_b (rank, in, *kernel).

    A half with a core t (rank, rank, *kernel) has w_a (rank, out) and w_b (rank, in).
    """
    require_matrices(where, shapes, *MATRICES)
    first, second = (measure_half(where, shapes, half) for half in "12")
    require_equal(where, "the sizes of both halves", (first.out, first.width), (second.out, second.width))
    return checked_size(
        where, first.out, first.width, min(first.rank * second.rank, first.out, first.width), low_rank=False
    )


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


def to_update(parts: Mapping[str, Tensor]) -> Update:
    """The update, in factors if these are faster."""
    update = HadamardUpdate(half_factors(parts, "1"), half_factors(parts, "2"))
    return LayerUpdate(update.down, update.up) if factors_are_faster(update) else update


def factors_are_faster(update: HadamardUpdate) -> bool:
    """Whether an update is sketched and measured faster by its factors than by its rows; in nanoseconds of one core.

    Factors take 3 for each number, 16,000 for the Fourier transforms of a pair of rows, and a fortieth for each product
    in their Gram matrices; an entry of dW takes 5, and a twelfth for each product. ``python -m scripts.bench_products``
    measures whole files.
    """
    (out, width), rank, inner = update.shape, update.rank, len(update.first[0]) + len(update.second[0])
    by_factors = rank * (out + width) * (3 + rank / 40) + 16_000 * rank
    return by_factors < out * width * (5 + inner / 12) or out * width > MAX_FACTOR_SIZE


def half_factors(parts: Mapping[str, Tensor], half: str) -> FactorPair:
    """The factors of one half, "1" or "2"."""
    first, second = as_matrix(parts[f"w{half}_a"]), as_matrix(parts[f"w{half}_b"])
    if f"t{half}" in parts:
        return apply_core(parts[f"t{half}"], second), first.T
    return second, first


def alpha_divisor(shapes: Mapping[str, Shape]) -> int:
    """The number that alpha is divided by."""
    return shapes["w1_b"][0]
