"""The algorithm behind each format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from loradex.retrieval.lora.factors import loha, lokr, lora
from loradex.retrieval.lora.factors.common import Pair, Shape, Size, flat, matrix, need, size_of, thin
from loradex.retrieval.lora.formats import Format


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One way to write an update.

    Attributes:
        roles: the parts that its factors are made of.
        measure: where, shapes -> the size of the update, from the header alone; raises FileCorrupt or FileUnsupported.
        factors: parts -> down (rank, in), up (out, rank), float32, without the scale.
        base_rank: shapes -> what alpha is divided by, or 0 where alpha has no effect.
    """

    roles: frozenset[str]
    measure: Callable[[str, Mapping[str, Shape]], Size]
    factors: Callable[[Mapping[str, Tensor]], Pair]
    base_rank: Callable[[Mapping[str, Shape]], int]


def measure_full(where: str, shapes: Mapping[str, Shape]) -> Size:
    """Size of diff (out, in, *kernel)."""
    need(where, shapes, "diff")
    out, width = flat(shapes["diff"])
    return size_of(where, out, width, min(out, width))


LORA: Final = Algorithm(frozenset({"down", "up", "mid"}), lora.measure, lora.factors, lora.base_rank)
ALGORITHMS: Final = {
    Format.DIFFUSERS: LORA,
    Format.ATTN_PROCESSOR: LORA,
    Format.PEFT: LORA,
    Format.KOHYA: LORA,
    Format.CLONEOFSIMO: LORA,
    Format.LOHA: Algorithm(frozenset({*loha.MATRICES, "t1", "t2"}), loha.measure, loha.factors, loha.base_rank),
    Format.LOKR: Algorithm(frozenset({"w1", "w2", *loha.MATRICES, "t2"}), lokr.measure, lokr.factors, lokr.base_rank),
    Format.GLORA: Algorithm(
        frozenset({"b1", "b2", "bm"}), lora.glora_measure, lora.glora_factors, lora.glora_base_rank
    ),
    Format.FULL: Algorithm(
        frozenset({"diff"}), measure_full, lambda parts: thin(matrix(parts["diff"])), lambda shapes: 0
    ),
}
