"""Unit vectors: validation, normalization, and their bytes in the catalogue."""

from collections.abc import Sized
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loradex.index.errors import ZooError

Vector = NDArray[np.float32]

NORM_TOLERANCE: Final = 2.0**-23  # a float32 vector whose norm is this close to 1 is kept bit by bit


def to_unit(vector: ArrayLike, dim: int, name: str, error: type[ZooError]) -> Vector:
    """Normalize a vector (dim,) to a float32 unit vector; its name begins an error message.

    Raises:
        error: it has another shape or type, NaN, infinity, or zero length.
    """
    try:
        array = np.asarray(vector)
    except (TypeError, ValueError) as cause:
        raise error(
            f"{name}: expected {dim} numbers, found {type(vector).__name__}: {cause}; pass a NumPy array"
        ) from None
    if array.shape != (dim,) or array.dtype.kind not in "fiu":
        raise error(
            f"{name}: expected shape ({dim},) of numbers, found {array.shape} of {array.dtype}; encode it with the zoo's own space"
        )
    with np.errstate(over="ignore"):
        wide = array.astype(np.float64)
    largest = np.abs(wide).max()
    if not np.isfinite(largest):
        raise error(f"{name}: expected finite numbers, found NaN or infinity; encode it again, the source is broken")
    if largest == 0:
        raise error(f"{name}: expected a vector with a direction, found only zeros; leave it out")
    if array.dtype == np.float32 and abs(np.linalg.norm(wide) - 1) < NORM_TOLERANCE:
        return array.copy()
    wide /= largest  # keeps the squares of huge and tiny numbers in range
    return (wide / np.linalg.norm(wide)).astype(np.float32)


def batch_length(vectors: Sized, error: type[ZooError]) -> int:
    """Return the number of vectors in a batch.

    Raises:
        error: it has no length.
    """
    try:
        return len(vectors)
    except TypeError:
        raise error(
            f"vectors: expected an array (n, dim), found {type(vectors).__name__} without a length; stack them"
        ) from None


def to_bytes(vector: Vector) -> bytes:
    """Return a vector as little-endian float32."""
    return vector.astype("<f4").tobytes()


def from_bytes(data: bytes) -> Vector:
    """Return the vector of ``to_bytes``."""
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def scored_rows(vectors: Vector, scales: ArrayLike, biases: ArrayLike) -> Vector:
    """Return rows (n, dim + 1) whose inner products with ``scored_queries`` are the scores of positions.

    Args:
        vectors: (n, dim), unit vectors.
        scales: (n,), of the positions.
        biases: (n,), of the positions.
    """
    rows = np.empty((len(vectors), vectors.shape[1] + 1), np.float32)
    np.multiply(vectors, np.asarray(scales, np.float32)[:, None], out=rows[:, :-1])
    rows[:, -1] = biases
    return rows


def scored_queries(queries: Vector) -> Vector:
    """Return queries (q, dim + 1): unit vectors times their scales (q, dim), with a 1 after each.

    The 1 takes up the biases of ``scored_rows``.
    """
    return np.concatenate([queries, np.ones((len(queries), 1), np.float32)], axis=1)


def largest_factor(query: Vector) -> float:
    """Return the factor of a query of ``scored_queries`` (dim + 1,) by which it enlarges an error of a unit query."""
    return max(1.0, float(np.linalg.norm(query[:-1])))


def exact_scores(rows: Vector, query: Vector) -> NDArray[np.float64]:
    """Return the scores (n,) of ``scored_rows`` (n, dim + 1) for a query of ``scored_queries`` (dim + 1,).

    FAISS may score equal rows differently, by their place in a block; computed one by one in float64, a score depends
    on its row only.
    """
    scores: NDArray[np.float64] = (rows.astype(np.float64) * query).sum(axis=1)
    return scores
