"""The states of a text encoder that a U-Net attends to, exactly as its pipeline gets them.

``families`` says which states those are; ``configs`` and ``weights`` read a text encoder from a diffusers folder or a
checkpoint in one file, ``prompt_encoder`` runs it by transformers, and ``updates`` lets states go through a LoRA's own
update of it. Nothing is looked up on a hub.
"""

from loradex.retrieval.text_states.prompt_encoder import PromptEncoder
from loradex.retrieval.text_states.tokens import END_ID, START_ID, load_tokenizer

__all__ = ["END_ID", "START_ID", "PromptEncoder", "load_tokenizer"]
