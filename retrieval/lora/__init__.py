"""A file -> its facts and its layer updates."""

from retrieval.lora.file import LoraFile
from retrieval.lora.keys import Format
from retrieval.lora.update import LayerUpdate

__all__ = ["Format", "LayerUpdate", "LoraFile"]
