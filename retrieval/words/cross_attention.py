"""The keys and values of a LoRA's cross-attention: the only layers that see the states of its captions."""

from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.errors import NoWords, NoWordsReason
from loradex.retrieval.lora import LoraFile, Update

LAYERS: Final = (".attn2.to_k", ".attn2.to_v")
MAX_RANK: Final = 64  # of a layer; of higher ranks the leading directions are read
KEPT_RANK: Final = 128  # in which the leading directions of an update that has no small factors are found


def row_space(update: Update) -> Tensor | None:
    """Rows R (up to ``MAX_RANK``, in) of length 1 in all, with Rᵀ R proportional to dWᵀ dW; None if the update is zero.

    It depends on dW alone, and not on how a format splits it into factors.
    """
    factors = update.leading(KEPT_RANK)
    up, down = factors.up.double(), factors.down.double()
    energies, turn = torch.linalg.eigh(up.mT @ up)
    rows = energies.clamp(min=0).sqrt()[:, None] * (turn.mT @ down)
    if len(rows) > MAX_RANK:
        lengths, turn = torch.linalg.eigh(rows @ rows.mT)
        rows = turn[:, -MAX_RANK:].mT @ rows
    length = float(rows.norm())
    return (rows / length).float() if length > 0 else None


def read_keys_and_values(lora: LoraFile, width: int) -> list[Tensor]:
    """Read the row spaces (rank, width) of the layers that see text states of a width, and no other bytes.

    Raises:
        NoWords: there are none, or all of their updates are zero.
        FileCorrupt: a layer holds NaN, infinity or a weight beyond all bounds.
    """
    names = [name for name, (_, layer_width) in lora.shapes.items() if name.endswith(LAYERS) and layer_width == width]
    layers = [layer for update in lora.updates(names).values() if (layer := row_space(update)) is not None]
    if not layers:
        found = f"{len(names)} whose updates are all zero" if names else "none"
        raise NoWords(
            f"{lora.path}: expected updates of keys or values of cross-attention ({width} wide), in which captions leave "
            f"their traces, found {found}; there are no words to be read from this file",
            NoWordsReason.LAYERS,
        )
    return layers
