"""Translation of trainers' names of modules into diffusers' names of layers.

``translate`` takes off prefixes, chooses the architecture, and applies its rules (``rules``); the other modules hold
the rules.
"""

from loradex.retrieval.lora.layer_names.rules import RowRanges
from loradex.retrieval.lora.layer_names.translate import TranslatedNames, translate_names

__all__ = ["RowRanges", "TranslatedNames", "translate_names"]
