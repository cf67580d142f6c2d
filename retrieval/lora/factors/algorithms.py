"""The algorithm behind each format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from loradex.retrieval.lora.factors import loha, lokr, lora
from loradex.retrieval.lora.factors.common import (
    FactorPair,
    Shape,
    UpdateSize,
    as_matrix,
    checked_size,
    factor_matrix,
    matrix_shape,
    require_matrices,
)
from loradex.retrieval.lora.formats import Format


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A way to write an update as several tensors, its parts.

    Attributes:
        roles: the roles of the parts that make the factors.
        measure: from the layer as error messages name it and the shapes by role, the size of the update; raises
            FileCorrupt or FileUnsupported.
        to_factors: from the parts by role, down (rank, in) and up (out, rank), float32, without the scale.
        alpha_divisor: from the shapes by role, the number that alpha is divided by, or 0 if alpha has no effect.
    """

    roles: frozenset[str]
    measure: Callable[[str, Mapping[str, Shape]], UpdateSize]
    to_factors: Callable[[Mapping[str, Tensor]], FactorPair]
    alpha_divisor: Callable[[Mapping[str, Shape]], int]


def measure_full(where: str, shapes: Mapping[str, Shape]) -> UpdateSize:
    """Size of an update from diff (out, in, *kernel)."""
    require_matrices(where, shapes, "diff")
    out, width = matrix_shape(shapes["diff"])
    return checked_size(where, out, width, min(out, width))


LORA: Final = Algorithm(frozenset({"down", "up", "mid"}), lora.measure, lora.to_factors, lora.alpha_divisor)
ALGORITHMS: Final = {
    Format.DIFFUSERS: LORA,
    Format.ATTN_PROCESSOR: LORA,
    Format.PEFT: LORA,
    Format.KOHYA: LORA,
    Format.CLONEOFSIMO: LORA,
    Format.LOHA: Algorithm(frozenset({*loha.MATRICES, "t1", "t2"}), loha.measure, loha.to_factors, loha.alpha_divisor),
    Format.LOKR: Algorithm(
        frozenset({"w1", "w2", *loha.MATRICES, "t2"}), lokr.measure, lokr.to_factors, lokr.alpha_divisor
    ),
    Format.GLORA: Algorithm(
        frozenset({"b1", "b2", "bm"}), lora.glora_measure, lora.glora_to_factors, lora.glora_alpha_divisor
    ),
    Format.FULL: Algorithm(
        frozenset({"diff"}), measure_full, lambda parts: factor_matrix(as_matrix(parts["diff"])), lambda shapes: 0
    ),
}
