"""A fingerprint of any LoRA, with no expert and no space: the cosine of two estimates the cosine of their whole updates.

Each layer's update up @ down is a sum of outer products, and its TensorSketch (Pham and Pagh, KDD 2013) is the sum of circular
convolutions of count sketches of their two sides, made by FFT. Sketches of all layers are added up: hashes of different layers are
independent, so their cross terms are zero on average. Nothing depends on how an update is factored, on its rank, its type or its keys.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loradex.retrieval.lora.update import LayerUpdate

SIZE: Final = 1024  # numbers; the cosine of unrelated updates is off by about 1 / sqrt(SIZE)
STEPS: Final = 127  # that a number is stored in
CACHED_SIDES: Final = 4096


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a LoRA changes, in a fixed size.

    Attributes:
        sketch: (SIZE,) float32 of length 1; all zeros when every update is zero.
        norm: the Frobenius norm of the whole update, over all layers.
    """

    sketch: NDArray[np.float32]
    norm: float

    @classmethod
    def of(cls, updates: Iterable[tuple[str, LayerUpdate]]) -> Self:
        """The fingerprint of a LoRA's updates by layer, taken one after another."""
        total, energy = torch.zeros(SIZE // 2 + 1, dtype=torch.complex64), 0.0
        for layer, update in updates:
            out, width = update.shape
            total += (spectra(update.up.mT, layer, "out", out) * spectra(update.down, layer, "in", width)).sum(0)
            energy += float(((update.up.mT @ update.up).double() * (update.down @ update.down.mT)).sum())
        sketch = torch.fft.irfft(total, n=SIZE).double()  # its squares may be too large for float32
        return cls((sketch / sketch.norm().clamp(min=1e-30)).float().numpy(), max(energy, 0.0) ** 0.5)

    def cosine(self, other: "Fingerprint") -> float:
        """The estimated cosine of both whole updates."""
        return float(self.sketch @ other.sketch)

    def to_bytes(self) -> bytes:
        """SIZE bytes of the sketch in whole steps, and the norm."""
        steps = np.round(self.sketch * (STEPS / max(float(np.abs(self.sketch).max()), 1e-30)))
        return struct.pack("<d", self.norm) + steps.astype(np.int8).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The reverse of ``to_bytes``.

        Raises:
            ValueError: the data are of another length.
        """
        if len(data) != 8 + SIZE:
            raise ValueError(f"fingerprint: expected {8 + SIZE} bytes, found {len(data)}")
        sketch = np.frombuffer(data, np.int8, offset=8).astype(np.float32)
        return cls(sketch / max(float(np.linalg.norm(sketch)), 1e-30), float(struct.unpack_from("<d", data)[0]))


def spectra(rows: Tensor, layer: str, side: str, width: int) -> Tensor:
    """Fourier transforms (rows, SIZE / 2 + 1) of the count sketches of ``rows`` (rows, width)."""
    places, signs = hashes(layer, side, width)
    return torch.fft.rfft(torch.zeros(len(rows), SIZE).index_add_(1, places, rows * signs))


@lru_cache(maxsize=CACHED_SIDES)
def hashes(layer: str, side: str, width: int) -> tuple[Tensor, Tensor]:
    """The place (width,) and sign (width,) of every index of one side of a layer, the same on every machine."""
    seed = int.from_bytes(hashlib.sha256(f"{layer} {side} {width}".encode()).digest()[:8], "little")
    rng = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(rng.integers(SIZE, size=width)), torch.from_numpy(
        rng.integers(2, size=width) * 2 - 1
    ).float()
