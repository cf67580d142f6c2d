"""Checks of arguments that all stores share."""

from operator import index as to_int
from pathlib import Path

from numpy.typing import ArrayLike

from loradex.index.errors import BadQuery, BadVector
from loradex.index.model import FoundBy, Model
from loradex.index.vectors import Vector, to_unit


def check_binding(folder: Path, space: str, dim: int) -> None:
    """Raise ``BadVector`` unless a zoo can be bound to a space of this name and dim."""
    if dim < 1 or not space:
        raise BadVector(f"{folder}: expected a space's name and dim, found {space!r} and {dim}; pass the encoder's")


def checked_vector(model: Model, vector: ArrayLike | None, dim: int) -> Vector | None:
    """Return a model's vector at length 1, or None for a model found by metadata that has none.

    Raises:
        BadVector: the vector is invalid, or missing.
    """
    if vector is not None:
        return to_unit(vector, dim, f"vector of model {model.id!r}", BadVector)
    if model.found_by == FoundBy.METADATA:
        return None
    raise BadVector(
        f"vector of model {model.id!r}: expected one, as it was found by weights, found None; pass it, or set found_by to metadata"
    )


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
