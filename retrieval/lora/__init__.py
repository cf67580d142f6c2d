"""LoRA files and full models: what they are, and their weight updates by layer.

``file`` opens LoRAs, and ``full_model`` reads fine-tunes with all weights as their difference to the base model.
``formats`` recognises a file's format by its tensor names, ``layer_names`` translates trainers' names of layers into
diffusers', and ``family`` tells the family of the base model.
"""

from loradex.retrieval.lora.file import LoraFile
from loradex.retrieval.lora.formats import Format
from loradex.retrieval.lora.full_model import FullModel, WeightsFile
from loradex.retrieval.lora.update import LayerUpdate, Update

__all__ = ["Format", "FullModel", "LayerUpdate", "LoraFile", "Update", "WeightsFile"]
