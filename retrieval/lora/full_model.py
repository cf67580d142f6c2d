"""A full model (a fine-tune with all its weights), read as its difference to the base model, in factor form.

The difference of a layer is of full rank. Its leading directions are kept, found by subspace iteration (Halko,
Martinsson and Tropp 2011, algorithm 4.4) over some rows at a time: neither the layer nor the difference is ever in
memory as a whole.
"""

import hashlib
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora.facts import Facts, read_facts
from loradex.retrieval.lora.file import LoraFile
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.layer_names import translate_names
from loradex.retrieval.lora.layout import DTYPES, Layout
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.lora.update import LayerUpdate, leading_directions

KEPT_RANK: Final = 128  # directions that are kept of a layer; all if a side is no longer
BLOCK_ROWS: Final = 256  # rows in memory at a time
WEIGHT: Final = ".weight"
MIN_SHARED: Final = 0.5  # share of the base's layers that a model must have in the same shape


@dataclass(frozen=True)
class FullModel:
    """A fine-tune of a base model with all its weights.

    Attributes:
        tensors: by layer, the names of its tensor in the file and in the base model.
        shapes: (out, in) of those layers; kernels of convolutions are flattened, (out, in * k * k).
        family: of the base model.
    """

    header: Header
    base: Header
    tensors: dict[str, tuple[str, str]]
    shapes: dict[str, tuple[int, int]]
    family: str

    @classmethod
    def open(cls, path: str | Path, base: Path, family: str) -> "FullModel":
        """Read both headers and match their layers by name and shape.

        Raises:
            FileUnsupported: the file is not a model of the base's architecture.
            FileError: a file cannot be read.
        """
        header, base_header = Header.read(Path(path)), Header.read(base)
        layers, base_layers = layer_weights(header.layout), layer_weights(base_header.layout)
        tensors = {
            layer: (layers[layer][0], base_tensor)
            for layer, (base_tensor, shape) in base_layers.items()
            if layer in layers and layers[layer][1] == shape
        }
        if len(tensors) < max(1, MIN_SHARED * len(base_layers)):
            raise FileUnsupported(
                f"{path}: expected LoRA factors, or a full model with the {len(base_layers)} layers of {family}, "
                f"found {len(tensors)} of them; choose another file"
            )
        return cls(header, base_header, tensors, {layer: base_layers[layer][1] for layer in tensors}, family)

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.header.path

    @property
    def format(self) -> str:
        """Name of the format."""
        return "whole model"  # as zoos store it

    @property
    def layers(self) -> Collection[str]:
        """The layers that it shares with its base, by their names in diffusers."""
        return self.tensors

    @property
    def ranks(self) -> list[int]:
        """The distinct ranks of the updates, ascending."""
        return sorted({min(KEPT_RANK, *shape) for shape in self.shapes.values()})

    @cached_property
    def facts(self) -> Facts:
        """What people and trainers wrote into its metadata and side-cars."""
        return read_facts(self.path, self.header.metadata)

    @cached_property
    def id(self) -> str:
        """Id made of the weights of its layers, which a moved or renamed file keeps."""
        digest = hashlib.sha256()
        for layer in sorted(self.tensors):
            digest.update(f"{layer} {self.shapes[layer]}\n".encode())
            for block in self.header.row_blocks(self.tensors[layer][0], BLOCK_ROWS):
                digest.update(block.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:20]

    def distance(self, layers: Collection[str]) -> float:
        """Distance of some layers from those of the base, relative to the base: |W - W0| / |W0|."""
        difference, base = 0.0, 0.0
        for layer in layers:
            _, base_tensor = self.tensors[layer]
            difference += sum(float(block.square().sum()) for block in self.difference_blocks(layer))
            base += sum(float(block.float().square().sum()) for block in self.base.row_blocks(base_tensor, BLOCK_ROWS))
        return math.sqrt(difference / max(base, 1e-30))

    def difference_blocks(self, layer: str) -> Iterator[Tensor]:
        """W - W0 of a layer, in blocks of some rows (rows, in)."""
        tensor, base_tensor = self.tensors[layer]
        blocks = self.header.row_blocks(tensor, BLOCK_ROWS)
        base_blocks = self.base.row_blocks(base_tensor, BLOCK_ROWS)
        for block, base_block in zip(blocks, base_blocks, strict=True):
            yield block.float() - base_block.float()

    def updates(self, layers: Collection[str] | None = None) -> dict[str, LayerUpdate]:
        """The leading directions of the differences of the named layers, or of all.

        Raises:
            FileCorrupt: a layer is missing, or holds NaN or infinity.
        """
        names = self.tensors if layers is None else layers
        missing = [layer for layer in names if layer not in self.tensors]
        if missing:
            raise FileCorrupt(
                f"{self.path}: expected layer {missing[0]}, found {len(self.tensors)} others; the model has another shape"
            )
        return {layer: self._update(layer) for layer in names}

    def iter_updates(self) -> Iterator[tuple[str, LayerUpdate]]:
        """The updates of all layers, one at a time."""
        return ((layer, self._update(layer)) for layer in self.tensors)

    def _update(self, layer: str) -> LayerUpdate:
        update = leading_directions(lambda: self.difference_blocks(layer), self.shapes[layer], KEPT_RANK)
        if not update.up.isfinite().all():
            raise FileCorrupt(
                f"{self.path}: layer {printable(layer)}: expected finite weights, found NaN or infinity; the training run broke"
            )
        return update


def layer_weights(layout: Layout) -> dict[str, tuple[str, tuple[int, int]]]:
    """The weights of a full model: by the layer's name in diffusers, the name of its tensor and its shape (out, in)."""
    shapes = {}
    for name, info in layout.tensors.items():
        if name.endswith(WEIGHT) and info.dtype in DTYPES and len(info.shape) > 1 and min(info.shape) > 0:
            shapes[name.removesuffix(WEIGHT)] = (info.shape[0], math.prod(info.shape[1:]))
    layers_by_module = translate_names(shapes).layers if shapes else {}
    return {
        layers[0][0]: (module + WEIGHT, shapes[module])
        for module, layers in layers_by_module.items()
        if len(layers) == 1
    }


WeightsFile = LoraFile | FullModel  # what an expert can read
