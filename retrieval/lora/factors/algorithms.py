"""The algorithm behind each format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from loradex.retrieval.lora.factors import loha, lokr, lora
from loradex.retrieval.lora.factors.common import (
    Shape,
    UpdateSize,
    as_matrix,
    checked_size,
    matrix_shape,
    require_matrices,
)
from loradex.retrieval.lora.factors.rowwise import MatrixUpdate
from loradex.retrieval.lora.formats import Format
from loradex.retrieval.lora.update import Update


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A way to write an update as several tensors, its parts.

    Attributes:
        roles: the roles of the parts that make the factors.
        measure: from the layer as error messages name it and the shapes by role, the size of the update; raises
            FileCorrupt or FileUnsupported.
        to_update: from the parts by role, the update in float32, without the scale.
        alpha_divisor: from the shapes by role, the number that alpha is divided by, or 0 if alpha has no effect.
    """

    roles: frozenset[str]
    measure: Callable[[str, Mapping[str, Shape]], UpdateSize]
    to_update: Callable[[Mapping[str, Tensor]], Update]
    alpha_divisor: Callable[[Mapping[str, Shape]], int]


def measure_full(where: str, shapes: Mapping[str, Shape]) -> UpdateSize:
    """Size of an update from diff (out, in, *kernel)."""
    require_matrices(where, shapes, "diff")
    out, width = matrix_shape(shapes["diff"])
    return checked_size(where, out, width, min(out, width), low_rank=False)


def full_update(parts: Mapping[str, Tensor]) -> MatrixUpdate:
    """The update of a full matrix."""
    return MatrixUpdate(as_matrix(parts["diff"]))


LORA: Final = Algorithm(frozenset({"down", "up", "mid"}), lora.measure, lora.to_update, lora.alpha_divisor)
ALGORITHMS: Final = {
    Format.DIFFUSERS: LORA,
    Format.ATTN_PROCESSOR: LORA,
    Format.PEFT: LORA,
    Format.KOHYA: LORA,
    Format.CLONEOFSIMO: LORA,
    Format.LOHA: Algorithm(frozenset({*loha.MATRICES, "t1", "t2"}), loha.measure, loha.to_update, loha.alpha_divisor),
    Format.LOKR: Algorithm(
        frozenset({"w1", "w2", *loha.MATRICES, "t2"}), lokr.measure, lokr.to_update, lokr.alpha_divisor
    ),
    Format.GLORA: Algorithm(
        frozenset({"b1", "b2", "bm"}), lora.glora_measure, lora.glora_to_update, lora.glora_alpha_divisor
    ),
    Format.FULL: Algorithm(frozenset({"diff"}), measure_full, full_update, lambda shapes: 0),
}
