"""Facts that people and trainers wrote about a LoRA, read from the metadata of its header and from side-cars.

Nothing is checked against the weights. ``reading`` has the order of the sources, ``side_cars`` and ``metadata`` the
words of each.
"""

from loradex.retrieval.lora.facts.metadata import parse_metadata
from loradex.retrieval.lora.facts.model import Facts
from loradex.retrieval.lora.facts.reading import header_facts, read_facts
from loradex.retrieval.lora.facts.side_cars import (
    LORADEX_KEY,
    MAX_SIDE_CAR_BYTES,
    TRAINED_WORDS,
    WRITTEN_KEY,
    parse_lora_manager,
    parse_text,
    read_json_object,
)
from loradex.retrieval.lora.facts.text import MAX_WORDS, clean_text

__all__ = [
    "LORADEX_KEY",
    "MAX_SIDE_CAR_BYTES",
    "MAX_WORDS",
    "TRAINED_WORDS",
    "WRITTEN_KEY",
    "Facts",
    "clean_text",
    "header_facts",
    "parse_lora_manager",
    "parse_metadata",
    "parse_text",
    "read_json_object",
    "read_facts",
]
