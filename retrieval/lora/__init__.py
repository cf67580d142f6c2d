"""A file -> its facts and its layer updates."""

from retrieval.lora.file import LoraFile
from retrieval.lora.keys import Format
from retrieval.lora.update import LayerUpdate
from retrieval.lora.whole import WeightsFile, WholeModel

__all__ = ["Format", "LayerUpdate", "LoraFile", "WeightsFile", "WholeModel"]
