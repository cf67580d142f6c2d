"""The algorithms behind LoRAs: tensors of one module -> its update as two factors."""

from loradex.retrieval.lora.factors.algorithms import ALGORITHMS, Algorithm
from loradex.retrieval.lora.factors.common import LARGEST_FACTOR, LARGEST_RANK, Pair, Shape, Size

__all__ = ["ALGORITHMS", "LARGEST_FACTOR", "LARGEST_RANK", "Algorithm", "Pair", "Shape", "Size"]
