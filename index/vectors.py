"""Checks and unit length for vectors, and their bytes in the catalogue."""

from collections.abc import Sequence, Sized
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loradex.index.errors import ZooError

Vector = NDArray[np.float32]
ROUNDING: Final = 2.0**-23  # by which a vector of float32 may be off length 1, which then stays as it is
Vectors = (
    NDArray[np.floating] | Sequence[NDArray[np.floating] | None]
)  # (n, dim), or n vectors of which some may be absent


def to_unit(vector: ArrayLike, dim: int, what: str, error: type[ZooError]) -> Vector:
    """A vector (dim,) of any length as float32 of length 1.

    Raises:
        error: another shape or type, NaN, infinity or zero length; ``what`` begins the message.
    """
    try:
        found = np.asarray(vector)
    except (TypeError, ValueError) as cause:
        raise error(
            f"{what}: expected {dim} numbers, found {type(vector).__name__}: {cause}; pass a NumPy array"
        ) from None
    if found.shape != (dim,) or found.dtype.kind not in "fiu":
        raise error(
            f"{what}: expected shape ({dim},) of numbers, found {found.shape} of {found.dtype}; encode it with the zoo's own space"
        )
    with np.errstate(over="ignore"):
        wide = found.astype(np.float64)
    largest = np.abs(wide).max()
    if not np.isfinite(largest):
        raise error(f"{what}: expected finite numbers, found NaN or infinity; encode it again, the source is broken")
    if largest == 0:
        raise error(
            f"{what}: expected a direction, found only zeros; a vector of zero length is like nothing, leave it out"
        )
    if found.dtype == np.float32 and abs(np.linalg.norm(wide) - 1) < ROUNDING:
        return found.copy()
    wide /= largest  # so that the squares of huge and tiny numbers stay in range
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def count(vectors: Sized, error: type[ZooError]) -> int:
    """The number of vectors in a batch.

    Raises:
        error: it is no batch.
    """
    try:
        return len(vectors)
    except TypeError:
        raise error(
            f"vectors: expected an array (n, dim), found {type(vectors).__name__} without a length; stack them"
        ) from None


def to_bytes(vector: Vector) -> bytes:
    """Little-endian float32, on any machine."""
    return vector.astype("<f4").tobytes()


def from_bytes(blob: bytes) -> Vector:
    """The reverse of ``to_bytes``."""
    return np.frombuffer(blob, dtype="<f4").astype(np.float32)
