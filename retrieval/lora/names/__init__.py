"""Trainers' names of modules -> diffusers' names of layers."""

from loradex.retrieval.lora.names.grammar import Rows
from loradex.retrieval.lora.names.naming import Naming, name_layers

__all__ = ["Naming", "Rows", "name_layers"]
