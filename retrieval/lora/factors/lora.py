"""LoRA and LoCon: dW = up @ down, in Tucker form with a core between them; and GLoRA's part that needs no base weight.

Source: LyCORIS ``modules/locon.py``, ``functional/general.py`` (tucker_weight_from_conv) and ``modules/glora.py``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from loradex.retrieval.lora.factors.common import (
    Shape,
    UpdateSize,
    as_matrix,
    checked_size,
    matrix_shape,
    require_equal,
    require_matrices,
)
from loradex.retrieval.lora.update import LayerUpdate


def measure(where: str, shapes: Mapping[str, Shape]) -> UpdateSize:
    """Size of an update from down (rank, in, *kernel), up (out, rank, 1, 1) and perhaps mid (rank, rank, *kernel)."""
    require_matrices(where, shapes, "down", "up")
    (rank, width), (out, inner) = matrix_shape(shapes["down"]), matrix_shape(shapes["up"])
    if "mid" in shapes:
        require_matrices(where, shapes, "mid")
        require_equal(where, "the ranks of down and mid", rank, shapes["mid"][1])
        rank, width = shapes["mid"][0], width * matrix_shape(shapes["mid"][1:])[1]
    require_equal(where, "(rank, in) and (out, rank)", rank, inner)
    return checked_size(where, out, width, rank)


def to_update(parts: Mapping[str, Tensor]) -> LayerUpdate:
    """The update in factors; a core is multiplied into ``down``."""
    down, up = as_matrix(parts["down"]), as_matrix(parts["up"])
    if "mid" in parts:
        down = apply_core(parts["mid"], down)
    return LayerUpdate(down, up)


def apply_core(core: Tensor, down: Tensor) -> Tensor:
    """Product (m, in * kernel) of a core (m, n, *kernel), whose kernel is optional, and a matrix (n, in)."""
    return torch.einsum("mnk,ni->mik", core.float()[..., None].flatten(2), down).flatten(1)


def alpha_divisor(shapes: Mapping[str, Shape]) -> int:
    """The number that alpha is divided by."""
    return shapes["down"][0]


def glora_measure(where: str, shapes: Mapping[str, Shape]) -> UpdateSize:
    """Size of GLoRA's additive part from b1, b2 and the optional core bm; a1 and a2 only show that it is GLoRA."""
    require_matrices(where, shapes, "a1", "a2", "b1", "b2")
    return measure(where, glora_shapes(shapes))


def glora_to_update(parts: Mapping[str, Tensor]) -> LayerUpdate:
    """The update of the additive part alone; the other part multiplies the base weight."""
    shapes = {role: tuple(part.shape) for role, part in parts.items()}
    return to_update({role: parts[name] for role, name in glora_names(shapes).items()})


def glora_alpha_divisor(shapes: Mapping[str, Shape]) -> int:
    """The number that alpha is divided by."""
    return alpha_divisor(glora_shapes(shapes))


def glora_down_up(shapes: Mapping[str, Shape]) -> tuple[str, str]:
    """The names of the down and the up factor among b1 and b2: old and new files have them the other way round."""
    (rows1, columns1), (rows2, columns2) = matrix_shape(shapes["b1"]), matrix_shape(shapes["b2"])
    first_is_down = rows1 == columns2 and (columns1 != rows2 or rows1 <= columns1)
    return ("b1", "b2") if first_is_down else ("b2", "b1")


def glora_names(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """GLoRA's names of the parts by LoRA's roles."""
    down, up = glora_down_up(shapes)
    return {"down": down, "up": up} | ({"mid": "bm"} if "bm" in shapes else {})


def glora_shapes(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of GLoRA's parts by LoRA's roles."""
    return {role: shapes[name] for role, name in glora_names(shapes).items()}
