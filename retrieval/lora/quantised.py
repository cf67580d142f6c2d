"""Quantised factors: whole numbers, or numbers with scales beside them, which are never read as if they had none.

The names are those that quantisers write beside a tensor ``x.weight``: scaled FP8 (``x.scale_weight``,
``x.weight_scale``, ``x.scale_input``, ``scaled_fp8``), bitsandbytes (``x.weight.absmax``, ``x.weight.quant_state...``,
``x.SCB``), quanto (``x.weight._data``, ``x.weight._scale``), torchao, GPTQ and AWQ (``x.qweight``, ``x.scales``).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from loradex.retrieval.lora.layout import Layout

SCALE: Final = r"(?:weight_|input_|output_|activation_|w_|in_|_|nested_|block_|global_)?scales?(?:_weight|_input|_output|_inv|_w|_\d)?"
STATE: Final = (
    r"(?:nested_)?(?:absmax|quant_map|offset)|quant_state(?:\..+)?|quant(?:ization|isation)?(?:_\w+)?|comfy_quant|"
    r"(?:weight_)?zero_?points?|q?zeros|_shift|w?zeros|wscales|g_idx|SCB|CB|weight_format|scaled_fp8|"
    r"_data|qdata|weight_qdata|qweight|packed|weight_packed|codebooks?|lut"
)
QUANTISER_WORD: Final = re.compile(rf"(?:{SCALE}|{STATE})")
QUANTISER_NAME: Final = re.compile(rf"(?:(?P<stem>.*?)[._])?(?:{SCALE}|{STATE})")
FILE_MARK: Final = "scaled_fp8"  # beside the weights of a whole file in eight bits
WHOLE_NUMBERS: Final = frozenset({"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"})
EIGHT_BITS: Final = frozenset({"F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"})
WEIGHT: Final = ".weight"


def is_quantiser_word(word: str) -> bool:
    """Whether a quantiser writes such a word behind the name of a tensor."""
    return QUANTISER_WORD.fullmatch(word) is not None


def is_quantiser_name(name: str) -> bool:
    """Whether a tensor's name is that of a quantiser's scale, map or packed numbers."""
    return QUANTISER_NAME.fullmatch(name) is not None


def stem(factor: str) -> str:
    """The name of a tensor without what a quantiser replaces."""
    return factor.removesuffix(WEIGHT)


class Quantisation:
    """What the tensors of a file that belong to no format say of those that do."""

    def __init__(self, others: Iterable[str]) -> None:
        """Find the tensors that have something of a quantiser beside them among the names of other tensors."""
        self.stems: set[str] = set()
        self.scaled_file = False
        for name in others:
            found = QUANTISER_NAME.fullmatch(name)
            if found:
                self.stems.add(stem(found["stem"] or ""))
                self.scaled_file |= name.rpartition(".")[2] == FILE_MARK

    def concerns(self, layout: Layout, module: str, parts: Mapping[str, str]) -> bool:
        """Whether factors of a module are quantised.

        Args:
            layout: of the file.
            module: its name.
            parts: the names of its tensors, by role.
        """
        factors = [name for role, name in parts.items() if role != "alpha"]
        dtypes = {layout.tensors[name].dtype for name in factors}
        if not dtypes.isdisjoint(WHOLE_NUMBERS) or self.scaled_file and not dtypes.isdisjoint(EIGHT_BITS):
            return True
        return bool(self.stems) and any(stem(name) in self.stems for name in (*factors, module))
