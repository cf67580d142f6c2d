"""Attention over a beginning that many texts share, of which keys and values are computed once.

Attention looks back only, so the states of the tokens that all texts begin with ("a photo of a ...", or a caption that
is grown token by token) are the same in each. The tokens behind them attend to keys and values that were kept. That is
exact, and saves the share's part of the work.
"""

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ATTENTION: Final = "loradex_shared_prefix"  # its name in transformers' register of attention functions
MIN_SAVED: Final = 256  # tokens that a second run through the model must save to be worth it


class Prefix:
    """Keys and values (1, heads, positions, head width) of the positions that texts share, by layer."""

    def __init__(self) -> None:
        """Begin without any; the first run of the model keeps its own, the next ones stand behind them."""
        self._kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def join(self, layer: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put the kept keys and values before those of some texts (n, heads, positions, head width)."""
        if layer not in self._kept:
            self._kept[layer] = key, value
            return key, value
        kept_key, kept_value = (kept.expand(len(key), -1, -1, -1) for kept in self._kept[layer])
        return torch.cat([kept_key, key], 2), torch.cat([kept_value, value], 2)


def causal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    prefix: Prefix | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attend to all positions before each, as transformers calls a registered attention function."""
    if prefix is not None:
        key, value = prefix.join(module, key, value)
    new, all_positions = query.shape[2], key.shape[2]
    mask = None
    if new < all_positions:
        mask = torch.ones(new, all_positions, dtype=torch.bool, device=query.device).tril(all_positions - new)
    attended = F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None, scale=scaling)
    return attended.transpose(1, 2).contiguous(), None


def register_attention() -> str:
    """Put ``causal_attention`` into transformers' register and return its name there."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, causal_attention)
    return ATTENTION


def shared_length(tokens: Tensor) -> int:
    """The number of positions at the beginning of all texts (n, length) whose states are worth keeping."""
    same = (tokens == tokens[:1]).all(0)[:-1]  # of each text at least the last position is left
    length = int(same.long().cumprod(0).sum())
    return length if length * (len(tokens) - 1) >= MIN_SAVED else 0
