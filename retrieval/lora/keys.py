"""Names of tensors -> layers, for the serialisations that Loradex reads.

Source of the patterns: diffusers ``utils/state_dict_utils.py`` and ``loaders/lora_conversion_utils.py``.
"""

import re
from dataclasses import dataclass
from enum import StrEnum


class Format(StrEnum):
    """How a trainer names the two factors of a layer."""

    DIFFUSERS = "diffusers"  # unet.<layer>.lora.down.weight, as Model-J
    ATTN_PROCESSOR = "diffusers-attn-processor"  # <block>.processor.to_q_lora.down.weight
    PEFT = "peft"  # <layer>.lora_A[.adapter].weight


PATTERNS = {
    Format.DIFFUSERS: re.compile(r"(?P<layer>.+)\.lora\.(?P<factor>down|up)\.weight"),
    Format.ATTN_PROCESSOR: re.compile(r"(?P<layer>.+)\.processor\.(?P<to>to_\w+?)_lora\.(?P<factor>down|up)\.weight"),
    Format.PEFT: re.compile(r"(?P<layer>.+)\.lora_(?P<factor>A|B)(\.\w+)?\.weight"),
}
PREFIX = re.compile(r"^(base_model\.model\.|unet\.)+")
DOWN = {"down", "A"}


@dataclass(frozen=True, slots=True)
class FactorKeys:
    """The names of a layer's two tensors in the file; an empty one is missing."""

    down: str = ""
    up: str = ""


def find_layers(names: list[str]) -> tuple[Format | None, dict[str, FactorKeys]]:
    """The format of a file's tensor names, and its layers by their diffusers name, sorted."""
    for form, pattern in PATTERNS.items():
        factors: dict[str, dict[str, str]] = {}
        for name in names:
            match = pattern.fullmatch(name)
            if match:
                layer = PREFIX.sub("", match["layer"])
                if form is Format.ATTN_PROCESSOR:
                    layer += "." + ("to_out.0" if match["to"] == "to_out" else match["to"])
                factors.setdefault(layer, {})["down" if match["factor"] in DOWN else "up"] = name
        if factors:
            return form, {layer: FactorKeys(**pair) for layer, pair in sorted(factors.items())}
    return None, {}
