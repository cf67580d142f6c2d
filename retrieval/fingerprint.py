"""Fingerprints of LoRAs, with no expert and no space: the cosine of two estimates the cosine of their full updates.

Each layer's update up @ down is a sum of outer products. Its TensorSketch (Pham and Pagh, KDD 2013) is the sum of the
circular convolutions of the count sketches of their two sides, computed by FFT; of an update that is no low-rank
product both sides are hashed, and entries whose buckets add up to one number are summed. The sketches of all layers are
added: the hashes of different layers are independent, so their cross terms are zero on average. The result does not
depend on how an update is factored, on its rank, its data type or its keys.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from mmap import mmap
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loradex.retrieval.lora.update import Hash, LayerUpdate, Update

SIZE: Final = 1024  # entries; the cosine of unrelated updates is off by about 1 / sqrt(SIZE)
QUANTIZATION_STEPS: Final = 127  # on either side of zero, for a stored entry
HASH_CACHE_SIZE: Final = 4096  # sides of layers


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A summary of fixed size of all updates of a LoRA.

    Attributes:
        sketch: (SIZE,) float32 of length 1; all zeros when every update is zero.
        norm: Frobenius norm of the update over all layers.
    """

    sketch: NDArray[np.float32]
    norm: float

    @classmethod
    def of(cls, updates: Iterable[tuple[str, Update]]) -> Self:
        """Compute the fingerprint of (layer, update) pairs, one layer in memory at a time."""
        total, energy = torch.zeros(SIZE // 2 + 1, dtype=torch.complex64), 0.0
        table: Tensor | None = None  # of updates that are no low-rank products, with both sides hashed
        for layer, update in updates:
            out, width = update.shape
            if isinstance(update, LayerUpdate):
                total += (spectra(update.up.mT, layer, "out", out) * spectra(update.down, layer, "in", width)).sum(0)
                energy += update.energy()
            else:
                table = torch.zeros(SIZE, SIZE) if table is None else table
                energy += update.fold_into(table, hashes(layer, "out", out), hashes(layer, "in", width))
        sketch = torch.fft.irfft(total, n=SIZE).double()  # its squares may be too large for float32
        if table is not None:
            sketch += antidiagonal_sums(table)
        return cls((sketch / sketch.norm().clamp(min=1e-30)).float().numpy(), max(energy, 0.0) ** 0.5)

    def cosine(self, other: "Fingerprint") -> float:
        """Estimate the cosine of the full updates."""
        return float(self.sketch @ other.sketch)

    def to_bytes(self) -> bytes:
        """The norm (float64), then the sketch as SIZE signed bytes."""
        steps = np.round(self.sketch * (QUANTIZATION_STEPS / max(float(np.abs(self.sketch).max()), 1e-30)))
        return struct.pack("<d", self.norm) + steps.astype(np.int8).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote.

        Raises:
            ValueError: the data have another length.
        """
        if len(data) != 8 + SIZE:
            raise ValueError(f"fingerprint: expected {8 + SIZE} bytes, found {len(data)}")
        sketch = np.frombuffer(data, np.int8, offset=8).astype(np.float32)
        return cls(sketch / max(float(np.linalg.norm(sketch)), 1e-30), float(struct.unpack_from("<d", data)[0]))


def antidiagonal_sums(table: Tensor) -> Tensor:
    """Of a square table (n, n) the sums (n,), float64, of the entries whose row and column add up to k modulo n."""
    size = len(table)
    twice = torch.cat([table, table], 1)
    return twice.as_strided((size, size), (2 * size - 1, 1), size).sum(0, dtype=torch.float64)


def spectra(rows: Tensor, layer: str, side: str, width: int) -> Tensor:
    """Fourier transforms (n, SIZE / 2 + 1) of the count sketches of ``rows`` (n, width)."""
    buckets, signs = hashes(layer, side, width)
    return torch.fft.rfft(torch.zeros(len(rows), SIZE).index_add_(1, buckets, rows * signs))


def hashes(layer: str, side: str, width: int) -> Hash:
    """The bucket (width,) and sign (width,) of every index of one side of a layer, the same on every machine."""
    buckets, signs = hash_arrays(layer, side, width)
    return torch.from_numpy(buckets), torch.from_numpy(signs)


@lru_cache(maxsize=HASH_CACHE_SIZE)
def hash_arrays(layer: str, side: str, width: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """As ``hashes``, kept in memory of their own: in the heap they would stand in the way of the next large tensors."""
    seed = int.from_bytes(hashlib.sha256(f"{layer} {side} {width}".encode()).digest()[:8], "little")
    rng = np.random.Generator(np.random.PCG64(seed))
    memory = mmap(-1, max(12 * width, 1))
    buckets, signs = np.frombuffer(memory, np.int64, width), np.frombuffer(memory, np.float32, width, 8 * width)
    buckets[:] = rng.integers(SIZE, size=width)
    signs[:] = rng.integers(2, size=width) * 2 - 1
    return buckets, signs
