"""A file -> its facts and its layer updates."""

from loradex.retrieval.lora.file import LoraFile
from loradex.retrieval.lora.formats import Format
from loradex.retrieval.lora.full_model import WeightsFile, WholeModel
from loradex.retrieval.lora.update import LayerUpdate

__all__ = ["Format", "LayerUpdate", "LoraFile", "WeightsFile", "WholeModel"]
