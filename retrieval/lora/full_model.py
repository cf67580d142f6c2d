"""A whole fine-tuned model, read by its difference to the base model, in factor form.

The difference of a layer is of full rank; what is kept of it are its leading directions, found by subspace iteration (Halko, Martinsson and
Tropp 2011, algorithm 4.4) over some rows at a time, so that neither the layer nor the difference is ever in memory.
"""

import hashlib
import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora.facts import Facts, facts_of
from loradex.retrieval.lora.file import LoraFile
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.layer_names import name_layers
from loradex.retrieval.lora.layout import DTYPES, Layout
from loradex.retrieval.lora.problems import shown
from loradex.retrieval.lora.update import LayerUpdate

RANK: Final = 128  # directions kept of a layer, all where a side is no longer
ROWS: Final = 256  # in memory at a time
PASSES: Final = 2  # of subspace iteration
WEIGHT: Final = ".weight"
FEWEST: Final = 0.5  # of the base's layers, which a model must have in the same shape


@dataclass(frozen=True)
class WholeModel:
    """A model whose weights are those of a base model, fine-tuned.

    Attributes:
        tensors: by layer, the names of its tensor in the file and in the base model.
        shapes: (out, in) of those layers; kernels of convolutions are laid out flat, (out, in * k * k).
        family: of the base model.
    """

    header: Header
    base: Header
    tensors: dict[str, tuple[str, str]]
    shapes: dict[str, tuple[int, int]]
    family: str

    @classmethod
    def open(cls, path: str | Path, base: Path, family: str) -> "WholeModel":
        """Read both headers and match their layers by name and shape.

        Raises:
            FileUnsupported: it is no model of the base's architecture.
            FileError: a file cannot be read.
        """
        header, root = Header.read(Path(path)), Header.read(base)
        own, known = weights_of(header.layout), weights_of(root.layout)
        tensors = {
            layer: (own[layer][0], name)
            for layer, (name, shape) in known.items()
            if layer in own and own[layer][1] == shape
        }
        if len(tensors) < max(1, FEWEST * len(known)):
            raise FileUnsupported(
                f"{path}: expected LoRA factors, or a whole model with the {len(known)} layers of {family}, found {len(tensors)} of them; choose another file"
            )
        return cls(header, root, tensors, {layer: known[layer][1] for layer in tensors}, family)

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self.header.path

    @property
    def format(self) -> str:
        """How it is written."""
        return "whole model"

    @property
    def layers(self) -> Collection[str]:
        """The layers that it shares with its base, by their names in diffusers."""
        return self.tensors

    @property
    def ranks(self) -> list[int]:
        """The distinct numbers of directions that are kept, ascending."""
        return sorted({min(RANK, *shape) for shape in self.shapes.values()})

    @cached_property
    def facts(self) -> Facts:
        """What its metadata and the side-cars beside it say."""
        return facts_of(self.path, self.header.metadata)

    @cached_property
    def id(self) -> str:
        """A name made of the weights of its layers, which a moved or renamed file keeps."""
        digest = hashlib.sha256()
        for layer in sorted(self.tensors):
            digest.update(f"{layer} {self.shapes[layer]}\n".encode())
            for rows in self.header.blocks(self.tensors[layer][0], ROWS):
                digest.update(rows.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:20]

    def distance(self, layers: Collection[str]) -> float:
        """How far some layers lie from those of the base, relative to the base: |W - W0| / |W0|."""
        moved, length = 0.0, 0.0
        for layer in layers:
            own, base = self.tensors[layer]
            moved += sum(float(block.square().sum()) for block in self.differences(layer))
            length += sum(float(block.float().square().sum()) for block in self.base.blocks(base, ROWS))
        return math.sqrt(moved / max(length, 1e-30))

    def differences(self, layer: str) -> Iterator[Tensor]:
        """W - W0 of a layer, some rows (rows, in) at a time."""
        own, base = self.tensors[layer]
        for mine, theirs in zip(self.header.blocks(own, ROWS), self.base.blocks(base, ROWS), strict=True):
            yield mine.float() - theirs.float()

    def updates(self, layers: Collection[str] | None = None) -> dict[str, LayerUpdate]:
        """The leading directions of the differences of the named layers, or of all.

        Raises:
            FileCorrupt: a layer is missing, or holds NaN or infinity.
        """
        wanted = self.tensors if layers is None else layers
        missing = [layer for layer in wanted if layer not in self.tensors]
        if missing:
            raise FileCorrupt(
                f"{self.path}: expected layer {missing[0]}, found {len(self.tensors)} others; the model has another shape"
            )
        return {layer: self._update(layer) for layer in wanted}

    def each_update(self) -> Iterator[tuple[str, LayerUpdate]]:
        """All updates by layer, one at a time."""
        return ((layer, self._update(layer)) for layer in self.tensors)

    def _update(self, layer: str) -> LayerUpdate:
        update = leading(lambda: self.differences(layer), self.shapes[layer], RANK)
        if not update.up.isfinite().all():
            raise FileCorrupt(
                f"{self.path}: layer {shown(layer)}: expected finite weights, found NaN or infinity; the training run broke"
            )
        return update


def leading(blocks: Callable[[], Iterator[Tensor]], shape: tuple[int, int], rank: int) -> LayerUpdate:
    """The leading ``rank`` directions of a matrix (out, in) that ``blocks`` gives some rows at a time; all of it where a side is no longer than that."""
    width = shape[1]
    right = torch.randn(width, min(rank, *shape), generator=torch.Generator().manual_seed(0))
    for _ in range(PASSES):
        right = sum((block.mT @ (block @ right) for block in blocks()), torch.zeros_like(right))
        right = torch.linalg.qr(right.nan_to_num())[0]
    return LayerUpdate(right.mT.contiguous(), torch.cat([block @ right for block in blocks()]))


def weights_of(layout: Layout) -> dict[str, tuple[str, tuple[int, int]]]:
    """By a layer's name in diffusers: the name of its tensor and its (out, in)."""
    found = {}
    for name, info in layout.tensors.items():
        if name.endswith(WEIGHT) and info.dtype in DTYPES and len(info.shape) > 1 and min(info.shape) > 0:
            found[name.removesuffix(WEIGHT)] = (info.shape[0], math.prod(info.shape[1:]))
    layers = name_layers(found).layers if found else {}
    return {parts[0][0]: (module + WEIGHT, found[module]) for module, parts in layers.items() if len(parts) == 1}


WeightsFile = LoraFile | WholeModel  # what an expert may read
