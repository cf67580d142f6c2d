"""LoRA and LoCon: dW = up @ down, with a core between them in Tucker form; GLoRA's part that needs no base weight.

Source: LyCORIS ``modules/locon.py``, ``functional/general.py`` (tucker_weight_from_conv) and ``modules/glora.py``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from loradex.retrieval.lora.factors.common import Pair, Shape, Size, agree, flat, matrix, need, size_of


def measure(where: str, shapes: Mapping[str, Shape]) -> Size:
    """Size of down (rank, in, *kernel), up (out, rank, 1, 1) and perhaps mid (rank, rank, *kernel)."""
    need(where, shapes, "down", "up")
    (rank, width), (out, inner) = flat(shapes["down"]), flat(shapes["up"])
    if "mid" in shapes:
        need(where, shapes, "mid")
        agree(where, "the ranks of down and mid", rank, shapes["mid"][1])
        rank, width = shapes["mid"][0], width * flat(shapes["mid"][1:])[1]
    agree(where, "(rank, in) and (out, rank)", rank, inner)
    return size_of(where, out, width, rank)


def factors(parts: Mapping[str, Tensor]) -> Pair:
    """The factors themselves; a core goes into ``down``, which stays as thin: mid is (m, n, *kernel), down (n, in)."""
    down, up = matrix(parts["down"]), matrix(parts["up"])
    if "mid" in parts:
        down = core(parts["mid"], down)
    return down, up


def core(mid: Tensor, down: Tensor) -> Tensor:
    """(m, in * kernel) of a core (m, n, *kernel), with or without a kernel, and a matrix (n, in)."""
    return torch.einsum("mnk,ni->mik", mid.float()[..., None].flatten(2), down).flatten(1)


def base_rank(shapes: Mapping[str, Shape]) -> int:
    """What alpha is divided by."""
    return shapes["down"][0]


def glora_roles(shapes: Mapping[str, Shape]) -> tuple[str, str]:
    """Which of b1 and b2 is the down and which the up factor: old and new files disagree."""
    (rows1, columns1), (rows2, columns2) = flat(shapes["b1"]), flat(shapes["b2"])
    first_is_down = rows1 == columns2 and (columns1 != rows2 or rows1 <= columns1)
    return ("b1", "b2") if first_is_down else ("b2", "b1")


def glora_measure(where: str, shapes: Mapping[str, Shape]) -> Size:
    """Size of GLoRA's additive part: b1 and b2, perhaps with the core bm; a1 and a2 only tell that it is GLoRA."""
    need(where, shapes, "a1", "a2", "b1", "b2")
    return measure(where, glora_parts(shapes))


def glora_factors(parts: Mapping[str, Tensor]) -> Pair:
    """The additive part alone; the other one multiplies the base weight."""
    shapes = {role: tuple(part.shape) for role, part in parts.items()}
    return factors({role: parts[name] for role, name in glora_names(shapes).items()})


def glora_base_rank(shapes: Mapping[str, Shape]) -> int:
    """What alpha is divided by."""
    return base_rank(glora_parts(shapes))


def glora_names(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """GLoRA's parts under the names of LoRA's."""
    down, up = glora_roles(shapes)
    return {"down": down, "up": up} | ({"mid": "bm"} if "bm" in shapes else {})


def glora_parts(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Their shapes likewise."""
    return {role: shapes[name] for role, name in glora_names(shapes).items()}
