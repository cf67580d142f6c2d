"""The words that a LoRA was trained with, read from its weights and the text encoder of its base model.

``cross_attention`` takes the layers that see captions, ``likelihood`` scores prompts by them, ``prompts`` puts words
into prompts, and ``reader`` reads a file. Nothing is trained, and no other LoRA is needed.
"""

from loradex.retrieval.text_states.families import FAMILIES
from loradex.retrieval.words.prompts import Candidates
from loradex.retrieval.words.reader import MIN_PROBABILITY, Reading, Word, WordReader

READABLE_FAMILIES = frozenset(FAMILIES)

__all__ = [
    "MIN_PROBABILITY",
    "READABLE_FAMILIES",
    "Candidates",
    "Reading",
    "Word",
    "WordReader",
]
