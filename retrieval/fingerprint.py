"""A fingerprint of any LoRA, with no expert and no space: the cosine of two estimates the cosine of their whole updates.

Each layer's update up @ down is a sum of outer products, and its TensorSketch (Pham and Pagh, KDD 2013) is the sum of circular
convolutions of count sketches of their two sides, made by FFT. Sketches of all layers are added up: hashes of different layers are
independent, so their cross terms are zero on average. Nothing depends on how an update is factored, on its rank, its type or its keys.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from retrieval.lora.update import LayerUpdate

SIZE: Final = 2048  # numbers; the estimated cosine is off by about 1 / sqrt(SIZE)


def fingerprint(updates: Mapping[str, LayerUpdate]) -> Tensor:
    """A float32 vector (SIZE,), whose inner products estimate sums over layers of <dW1, dW2>, over the norm of the whole update.

    All zeros when every update is zero.
    """
    total, energy = torch.zeros(SIZE // 2 + 1, dtype=torch.complex64), 0.0
    for layer, update in updates.items():
        out, width = update.shape
        total += (spectra(update.up.mT, layer, "out", out) * spectra(update.down, layer, "in", width)).sum(0)
        energy += float(((update.up.mT @ update.up) * (update.down @ update.down.mT)).sum())
    return torch.fft.irfft(total, n=SIZE) / max(energy, 0.0) ** 0.5 if energy > 0 else torch.zeros(SIZE)


def spectra(rows: Tensor, layer: str, side: str, width: int) -> Tensor:
    """Fourier transforms (rows, SIZE / 2 + 1) of the count sketches of ``rows`` (rows, width)."""
    places, signs = hashes(layer, side, width)
    return torch.fft.rfft(torch.zeros(len(rows), SIZE).index_add_(1, places, rows * signs))


@lru_cache(maxsize=4096)
def hashes(layer: str, side: str, width: int) -> tuple[Tensor, Tensor]:
    """The place (width,) and sign (width,) of every index of one side of a layer, the same on every machine."""
    seed = int.from_bytes(hashlib.sha256(f"{layer} {side} {width}".encode()).digest()[:8], "little")
    rng = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(rng.integers(SIZE, size=width)), torch.from_numpy(rng.integers(2, size=width) * 2 - 1).float()
