"""What all algorithms share: matrices of any tensor, and exact factors of a full matrix."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileUnsupported

Shape = tuple[int, ...]
Pair = tuple[Tensor, Tensor]  # down (rank, in), up (out, rank)
LARGEST_RANK: Final = 4096
LARGEST_FACTOR: Final = 2**27  # numbers: 512 MiB


@dataclass(frozen=True, slots=True)
class Size:
    """The size of an update: dW is (out, width), and rank is the most that its factors need."""

    out: int
    width: int
    rank: int


def flat(shape: Shape) -> tuple[int, int]:
    """(rows, columns) of a tensor whose kernels are laid out flat: (out, in, k, k) becomes (out, in * k * k)."""
    return shape[0], math.prod(shape[1:])


def matrix(tensor: Tensor) -> Tensor:
    """The tensor as (rows, columns), float32."""
    return tensor.float().flatten(1)


def thin(full: Tensor) -> Pair:
    """Exact factors of a full matrix, the smaller side being the rank."""
    out, width = full.shape
    return (full, torch.eye(out)) if out <= width else (torch.eye(width), full)


def size_of(where: str, out: int, width: int, rank: int) -> Size:
    """A size within the bounds.

    Raises:
        FileCorrupt: a side or the rank is 0.
        FileUnsupported: a rank or a factor is too large.
    """
    if min(out, width, rank) < 1:
        raise FileCorrupt(
            f"{where}: expected a rank and sides from 1, found rank {rank} for {out} x {width}; save it again"
        )
    if rank > LARGEST_RANK or max(out, width) * rank > LARGEST_FACTOR:
        raise FileUnsupported(
            f"{where}: expected a rank up to {LARGEST_RANK} and {LARGEST_FACTOR} numbers a factor, found rank {rank} for {out} x {width}"
        )
    return Size(out, width, rank)


def need(where: str, shapes: Mapping[str, Shape], *roles: str) -> None:
    """Refuse a module that lacks some of its parts, or has one that is no matrix.

    Raises:
        FileCorrupt: naming what is missing.
    """
    missing = [role for role in roles if role not in shapes]
    if missing:
        raise FileCorrupt(
            f"{where}: expected the parts {', '.join(roles)}, found only {', '.join(sorted(shapes))}; save it again"
        )
    for role in roles:
        if len(shapes[role]) < 2:
            raise FileCorrupt(f"{where}: expected a matrix as {role}, found shape {shapes[role]}; save it again")


def agree(where: str, what: str, first: Shape | int, second: Shape | int) -> None:
    """Refuse parts that do not multiply.

    Raises:
        FileCorrupt: naming both sides.
    """
    if first != second:
        raise FileCorrupt(f"{where}: expected {what} to agree, found {first} and {second}; save it again")
