"""Updates that are no low-rank products, beside the dense matrices that they stand for."""

import torch
from torch import Tensor

from loradex.retrieval.lora import Update
from loradex.retrieval.lora.factors.kronecker import KroneckerUpdate
from loradex.retrieval.lora.factors.rowwise import HadamardUpdate, MatrixUpdate
from loradex.retrieval.lora.update import select_rows

NO_RANKS = 10_000, 10_000  # of operands that are whole matrices


def some_products(out: int = 40, width: int = 24, seed: int = 0) -> list[tuple[Update, Tensor]]:
    """Products of every kind, of both orders of size, and with rows that cut operands; sides are divided by 4 and 8."""
    torch.manual_seed(seed)
    pairs: list[tuple[Update, Tensor]] = []
    for a, b in ((4, 4), (out // 4, width // 4), (8, 2), (1, 1)):
        first, second = torch.randn(a, b), torch.randn(out // a, width // b)
        pairs.append((KroneckerUpdate(first, second, NO_RANKS), torch.kron(first, second)))
    first, second = torch.randn(4, 4), torch.randn(out // 4, 2) @ torch.randn(2, width // 4)
    pairs.append((KroneckerUpdate(first, second, (4, 2)), torch.kron(first, second)))
    for ranges in (((3, 3 + out),), ((0, out - 9), (out + 1, out + 10))):
        first, second = torch.randn(8, 4), torch.randn(out // 4, width // 4)  # two layers in one module
        whole = KroneckerUpdate(first, second, NO_RANKS)
        pairs.append((whole.part(ranges, 0.5), 0.5 * select_rows(torch.kron(first, second), ranges)))
    for rank in (2, 7):
        halves = [(torch.randn(rank, width), torch.randn(out, rank)) for _ in range(2)]
        dense = (halves[0][1] @ halves[0][0]) * (halves[1][1] @ halves[1][0])
        pairs += [(HadamardUpdate(*halves), dense), (MatrixUpdate(dense), dense)]
    return pairs
