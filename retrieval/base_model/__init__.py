"""Base models on disk: what they are, told by headers and configurations alone; no weights are loaded.

``model`` opens one: a folder of diffusers (``folder``, ``weights``) or a checkpoint in one file (``checkpoint_file``).
``unet_family`` tells its family, ``contents`` what another file is, and ``fingerprint`` whether a base has changed.
"""

from loradex.retrieval.base_model.fingerprint import fingerprint_of
from loradex.retrieval.base_model.model import BaseModel
from loradex.retrieval.base_model.part import Part
from loradex.retrieval.base_model.unet_family import family_of_tensors
from loradex.retrieval.base_model.weights import Weights, find_weights

__all__ = ["BaseModel", "Part", "Weights", "family_of_tensors", "find_weights", "fingerprint_of"]
