"""A file -> its facts and its layer updates."""

from loradex.retrieval.lora.file import LoraFile
from loradex.retrieval.lora.keys import Format
from loradex.retrieval.lora.update import LayerUpdate
from loradex.retrieval.lora.whole import WeightsFile, WholeModel

__all__ = ["Format", "LayerUpdate", "LoraFile", "WeightsFile", "WholeModel"]
