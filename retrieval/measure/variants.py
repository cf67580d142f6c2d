"""Changes of LoRA files that should change their vectors little: other ranks, data types, strengths, fewer layers."""

from collections.abc import Callable
from typing import Final

import torch

from loradex.retrieval.probex.batched_factors import Factors, LayerFactors, to_float32

Change = Callable[[LayerFactors], dict[str, Factors]]


def for_each_layer(change: Callable[[Factors], Factors]) -> Change:
    """Apply a change to the factors, in float32, of every layer."""
    return lambda models: {layer: change(to_float32(factors)) for layer, factors in models.items()}


def cast_to(dtype: torch.dtype) -> Callable[[Factors], Factors]:
    """Round both factors to a data type."""
    return lambda factors: Factors(factors.down.to(dtype).float(), factors.up.to(dtype).float())


def truncate_to(rank: int) -> Callable[[Factors], Factors]:
    """Replace updates by the nearest ones of a lower rank, by SVD in factor form."""

    def change(factors: Factors) -> Factors:
        (q1, r1), (q2, r2) = torch.linalg.qr(factors.up), torch.linalg.qr(factors.down.mT)
        u, s, v = torch.linalg.svd(r1 @ r2.mT)
        return Factors(v[:, :rank] @ q2.mT, q1 @ u[:, :, :rank] * s[:, None, :rank])

    return change


def rotate(factors: Factors) -> Factors:
    """Return other factors with the same products: both multiplied by an orthogonal matrix."""
    rank = factors.up.shape[2]
    rotation = torch.linalg.qr(torch.randn(rank, rank, generator=torch.Generator().manual_seed(0)))[0]
    return Factors(rotation.mT @ factors.down, factors.up @ rotation)


def keep_layers_with(text: str) -> Change:
    """Keep the layers whose name contains ``text``, as a trainer with fewer targets does."""
    return lambda models: {layer: factors for layer, factors in models.items() if text in layer}


VARIANTS: Final[dict[str, Change]] = {
    "as it is": for_each_layer(lambda factors: factors),
    "factors turned": for_each_layer(rotate),
    "bfloat16": for_each_layer(cast_to(torch.bfloat16)),
    "float8": for_each_layer(cast_to(torch.float8_e4m3fn)),
    "half the strength": for_each_layer(lambda factors: Factors(factors.down, factors.up / 2)),
    "four times the strength": for_each_layer(lambda factors: Factors(factors.down, factors.up * 4)),
    "cut to rank 2": for_each_layer(truncate_to(2)),
    "cut to rank 1": for_each_layer(truncate_to(1)),
    "cross-attention alone": keep_layers_with("attn2"),
    "values and outputs alone": lambda models: {
        layer: factors for layer, factors in models.items() if layer.endswith(("to_v", "to_out.0"))
    },
    "up blocks alone": keep_layers_with("up_blocks"),
}
