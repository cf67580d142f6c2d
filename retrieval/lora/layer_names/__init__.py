"""Trainers' names of modules -> diffusers' names of layers."""

from loradex.retrieval.lora.layer_names.rules import Rows
from loradex.retrieval.lora.layer_names.translate import Naming, name_layers

__all__ = ["Naming", "Rows", "name_layers"]
