"""Checks of arguments that all stores share."""

import math
from collections.abc import Mapping, Sequence
from operator import index as to_int
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from loradex.index.errors import BadQuery, BadVector
from loradex.index.evidence import PLACED, Evidence, Position
from loradex.index.model import Model
from loradex.index.vectors import to_unit

LARGEST_SCALE: Final = 1e6  # of a score, far beyond any likelihood

# What a caller may pass for a model: positions by kind of evidence, one vector (dim,) that stands for a picture's
# position with a cosine for a score, or nothing.
GivenPositions = Mapping[Evidence, Position | NDArray[np.floating]] | NDArray[np.floating] | None


def check_binding(folder: Path, space: str, dim: int) -> None:
    """Raise ``BadVector`` unless a zoo can be bound to a space of this name and dim."""
    if dim < 1 or not space:
        raise BadVector(f"{folder}: expected a space's name and dim, found {space!r} and {dim}; pass the encoder's")


def checked_positions(model: Model, given: GivenPositions, dim: int) -> dict[Evidence, Position]:
    """Return a model's positions, each with a vector at length 1, the weightiest first.

    Raises:
        BadVector: one of them is invalid, or of a kind of evidence that has none.
    """
    by_kind = {} if given is None else given if isinstance(given, Mapping) else {Evidence.PICTURE: given}
    if unknown := by_kind.keys() - set(PLACED):
        raise BadVector(
            f"model {model.id!r}: expected positions by {', '.join(PLACED)}, found one by {sorted(map(str, unknown))[0]!r}; leave it out"
        )
    return {kind: checked_position(model, kind, by_kind[kind], dim) for kind in PLACED if kind in by_kind}


def checked_position(model: Model, kind: Evidence, given: Position | ArrayLike, dim: int) -> Position:
    """Return a position with a vector at length 1.

    Raises:
        BadVector: the vector, the scale or the bias is invalid.
    """
    position = given if isinstance(given, Position) else Position(given)  # type: ignore[arg-type]
    name = f"{kind} vector of model {model.id!r}"
    vector = to_unit(position.vector, dim, name, BadVector)
    scale, bias = to_number(position.scale), to_number(position.bias)
    if not 0 < scale <= LARGEST_SCALE or not abs(bias) <= LARGEST_SCALE:
        raise BadVector(
            f"{name}: expected a positive scale and a bias up to {LARGEST_SCALE:g}, found {position.scale!r} and {position.bias!r}; calibrate again"
        )
    return Position(vector, scale, bias)


def checked_scales(scales: Sequence[float], count: int) -> NDArray[np.float32]:
    """Return the scales of ``count`` queries.

    Raises:
        BadQuery: there are more or fewer, or one is not positive.
    """
    numbers = [to_number(scale) for scale in scales]
    if len(numbers) != count or not all(0 < number <= LARGEST_SCALE for number in numbers):
        raise BadQuery(
            f"query: expected a positive scale for each of {count} queries, found {list(scales)[:3]!r}; pass one for each"
        )
    return np.array(numbers, np.float32)


def to_number(value: object) -> float:
    """Return a number as a float, or NaN for anything else."""
    return float(value) if isinstance(value, float | int | np.floating | np.integer) else math.nan


def checked_number_of_hits(k: object) -> int:
    """Return ``k`` as an int.

    Raises:
        BadQuery: it is negative or not an integer.
    """
    try:
        number = to_int(k)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise BadQuery(f"number of hits: expected 0 or more, found {k!r}; pass a whole number")
    return number
