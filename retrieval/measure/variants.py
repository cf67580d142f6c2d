"""Changes of LoRA files that should change little: other ranks, precisions, strengths, and fewer layers."""

from collections.abc import Callable, Mapping
from typing import Final

import torch

from loradex.retrieval.probex.batched_factors import Factors, widen

Models = dict[str, Factors]
Change = Callable[[Mapping[str, Factors]], Models]


def each(change: Callable[[Factors], Factors]) -> Change:
    """The same change of every layer."""
    return lambda models: {layer: change(widen(factors)) for layer, factors in models.items()}


def saved_as(dtype: torch.dtype) -> Callable[[Factors], Factors]:
    """Both factors saved in another precision."""
    return lambda factors: Factors(factors.down.to(dtype).float(), factors.up.to(dtype).float())


def cut_to(rank: int) -> Callable[[Factors], Factors]:
    """The nearest updates of a lower rank, by SVD of the factors."""

    def change(factors: Factors) -> Factors:
        (q1, r1), (q2, r2) = torch.linalg.qr(factors.up), torch.linalg.qr(factors.down.mT)
        u, s, v = torch.linalg.svd(r1 @ r2.mT)
        return Factors(v[:, :rank] @ q2.mT, q1 @ u[:, :, :rank] * s[:, None, :rank])

    return change


def refactored(factors: Factors) -> Factors:
    """The same products from other factors."""
    turn = torch.linalg.qr(
        torch.randn(factors.up.shape[2], factors.up.shape[2], generator=torch.Generator().manual_seed(0))
    )[0]
    return Factors(turn.mT @ factors.down, factors.up @ turn)


def only(part: str) -> Change:
    """Layers whose name has ``part``, as trainers with fewer targets leave them."""
    return lambda models: {layer: factors for layer, factors in models.items() if part in layer}


VARIANTS: Final[dict[str, Change]] = {
    "as it is": each(lambda factors: factors),
    "factors turned": each(refactored),
    "bfloat16": each(saved_as(torch.bfloat16)),
    "float8": each(saved_as(torch.float8_e4m3fn)),
    "half the strength": each(lambda factors: Factors(factors.down, factors.up / 2)),
    "four times the strength": each(lambda factors: Factors(factors.down, factors.up * 4)),
    "cut to rank 2": each(cut_to(2)),
    "cut to rank 1": each(cut_to(1)),
    "cross-attention alone": only("attn2"),
    "values and outputs alone": lambda models: {
        layer: factors for layer, factors in models.items() if layer.endswith(("to_v", "to_out.0"))
    },
    "up blocks alone": only("up_blocks"),
}
