"""The algorithms behind the formats: each turns the tensors of a module into its update."""

from loradex.retrieval.lora.factors.algorithms import ALGORITHMS, Algorithm
from loradex.retrieval.lora.factors.common import MAX_FACTOR_SIZE, MAX_RANK, FactorPair, Shape, UpdateSize

__all__ = ["ALGORITHMS", "MAX_FACTOR_SIZE", "MAX_RANK", "Algorithm", "FactorPair", "Shape", "UpdateSize"]
