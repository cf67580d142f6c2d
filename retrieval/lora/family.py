"""The family of base models that a LoRA was fine-tuned from, told by the widths of its layers.

The strongest sign is the input width of the cross-attention keys and values: the width of the text states.
"""

from collections.abc import Mapping
from typing import Final

UNKNOWN: Final = "unknown"
# family: width of the text states, widths of the attention blocks
FAMILIES: Final = {
    "sd1": (768, {320, 640, 1280}),
    "sd2": (1024, {320, 640, 1280}),
    "sdxl": (2048, {640, 1280}),
    "mini-a": (128, {96, 144}),
    "mini-b": (128, {64, 112}),
}


def family_of(shapes: Mapping[str, tuple[int, int]]) -> str:
    """The family for the (out, in) shapes of layers by name, or ``unknown``."""
    contexts = {shape[1] for layer, shape in shapes.items() if layer.endswith(("attn2.to_k", "attn2.to_v"))}
    widths = {shape[1] for layer, shape in shapes.items() if layer.endswith(("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_q"))}
    for family, (context, blocks) in FAMILIES.items():
        if widths and widths <= blocks and contexts <= {context} and contexts:
            return family
    return UNKNOWN
