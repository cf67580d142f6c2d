"""A LoRA file: facts from its header alone, layer updates from the bytes that are asked for."""

import hashlib
import math
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, located
from loradex.retrieval.lora.factors import ALGORITHMS
from loradex.retrieval.lora.facts import Facts, facts_of
from loradex.retrieval.lora.family import family_of, named_family
from loradex.retrieval.lora.formats import Format
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.layer_names import Rows
from loradex.retrieval.lora.layer_names.cloneofsimo import targets_of
from loradex.retrieval.lora.layers import Layer, Layers, read_layers
from loradex.retrieval.lora.peft_config import peft_scale, peft_settings, strange_patterns
from loradex.retrieval.lora.problems import shown
from loradex.retrieval.lora.update import LayerUpdate

LARGEST_WEIGHT: Final = 1e12  # the largest of which products over a layer are still finite
WITH_SETTINGS: Final = (Format.PEFT, Format.LOHA, Format.LOKR)


@dataclass(frozen=True)
class LoraFile:
    """One LoRA.

    Attributes:
        read: what its header says of its layers.
        settings: PEFT's adapter settings, where the format has some.
    """

    header: Header
    read: Layers
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> "LoraFile":
        """Read the header of a file.

        Raises:
            FileError: with the reason, when it is missing, unsafe, corrupt or holds no update that can be read.
        """
        return cls.of(Header.read(Path(path)))

    @classmethod
    def of(cls, header: Header) -> "LoraFile":
        """The LoRA of a header that was read.

        Raises:
            FileError: it holds no update that can be read, or contradicts itself.
        """
        with located(header.where):
            read = read_layers(header.layout, targets_of(header.metadata))
        return cls(header, read, peft_settings(header) if read.format in WITH_SETTINGS else {})

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self.header.path

    @property
    def format(self) -> Format:
        """How most layers are written."""
        return self.read.format

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers by their name in diffusers, sorted."""
        return self.read.layers

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of every layer; kernels of convolutions are laid out flat, (out, in * k * k)."""
        return self.read.shapes

    @property
    def ranks(self) -> list[int]:
        """The distinct ranks of the updates, ascending; of LoHa and LoKr the products."""
        return self.read.ranks

    @property
    def families(self) -> list[str]:
        """The families of base models that fit the names and shapes, the likeliest first."""
        return self.read.families

    @property
    def family(self) -> str:
        """The family of base models, or ``unknown``."""
        return family_of(self.families, self.header.metadata)

    @property
    def problems(self) -> list[str]:
        """What of the file is not read, or doubtful, one short line each."""
        lines = list(self.read.problems)
        named = named_family(self.header.metadata)
        if len(self.families) > 1 and named not in self.families:
            lines.append(f"these layers fit the families {', '.join(self.families)}; the first is assumed")
        if named and self.families and named not in self.families:
            lines.append(f"the metadata name the family {named}, the layers fit {self.family}")
        lines += [
            f"alpha_pattern {pattern[:80]!r} is a regular expression, which is not run"
            for pattern in strange_patterns(self.settings)[:1]
        ]
        return lines

    @cached_property
    def facts(self) -> Facts:
        """What its metadata and the side-cars beside it say; read when first asked for."""
        return facts_of(self.path, self.header.metadata)

    @cached_property
    def scales(self) -> list[float]:
        """The distinct scales of the layers, ascending; only the alphas are read."""
        tensors = self.header.load({layer.parts["alpha"] for layer in self.layers.values() if "alpha" in layer.parts})
        return sorted({self._scale(layer, tensors) for layer in self.layers.values()})

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the whole file, header and all, as sites that host LoRAs name them."""
        with self.header.opened() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 (hex) of the stored factors and scales in the order of their layers' diffusers names.

        Names, shapes, scales and bytes are those of the layers and not of the tensors, and a fused module counts as its layers,
        so neither header, key style nor file name change it. Tensors that are no part of an update do not count.
        """
        digest = hashlib.sha256()
        for name, layer in self.layers.items():
            tensors = self.header.load(set(layer.parts.values()))
            digest.update(f"{name} {layer.shape}".encode() + struct.pack("<d", self._scale(layer, tensors)))
            for role in sorted(layer.parts.keys() - {"alpha"}):
                tensor = tensors[layer.parts[role]]
                fused = role == "up" and not layer.whole
                matrix = tensor.flatten(1) if tensor.dim() > 1 else tensor.flatten()
                matrix = pick(matrix, layer.rows) if fused else matrix
                digest.update(f" {role} {tensor.dtype} {tuple(matrix.shape)}\n".encode())
                digest.update(matrix.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def id(self) -> str:
        """A name made of the weights, which a moved or renamed file keeps."""
        return self.data_hash[:20]

    def scale(self, layer: str) -> float:
        """What up @ down is multiplied by: alpha / rank where the file or PEFT's settings say so, else 1.

        Raises:
            FileCorrupt: the alpha is no finite number.
        """
        parts = self.layers[layer].parts
        return self._scale(self.layers[layer], self.header.load([parts["alpha"]] if "alpha" in parts else []))

    def updates(self, layers: Collection[str] | None = None) -> dict[str, LayerUpdate]:
        """The updates of the named layers, or of all, reading only their bytes.

        Raises:
            FileCorrupt: a layer is missing, or holds NaN or infinity.
        """
        wanted = self.layers if layers is None else layers
        missing = [layer for layer in wanted if layer not in self.layers]
        if missing:
            raise FileCorrupt(
                f"{self.header.where}: expected layer {missing[0]}, found {len(self.layers)} others; the LoRA was trained on fewer layers"
            )
        tensors = self.header.load({tensor for name in wanted for tensor in self.layers[name].needed.values()})
        return {name: self._update(name, tensors) for name in wanted}

    def each_update(self) -> Iterator[tuple[str, LayerUpdate]]:
        """All updates by layer, one at a time, so that no more than one is in memory.

        Raises:
            FileCorrupt: a layer holds NaN or infinity.
        """
        for layer in self.layers:
            yield layer, self.updates([layer])[layer]

    def _update(self, name: str, tensors: Mapping[str, Tensor]) -> LayerUpdate:
        """The update of one layer from the file's tensors."""
        layer = self.layers[name]
        algorithm = ALGORITHMS[layer.format]
        down, up = algorithm.factors(
            {role: tensors[tensor] for role, tensor in layer.needed.items() if role != "alpha"}
        )
        up = pick(up, layer.rows) * self._scale(layer, tensors)
        if not (down.abs().max() <= LARGEST_WEIGHT and up.abs().max() <= LARGEST_WEIGHT):
            found = f"expected finite weights up to {LARGEST_WEIGHT:.0e}, found NaN, infinity or larger ones"
            raise FileCorrupt(f"{self.header.where}: layer {shown(name)}: {found}; the training run broke")
        return LayerUpdate(down, up)

    def _scale(self, layer: Layer, tensors: Mapping[str, Tensor]) -> float:
        """The scale of a layer; an alpha of 0 means the rank, as kohya and LyCORIS have it."""
        if "alpha" in layer.parts:
            alpha = tensors[layer.parts["alpha"]].double().item()
            if not math.isfinite(alpha):
                raise FileCorrupt(
                    f"{self.header.where}: layer {shown(layer.module)}: expected a finite alpha, found {alpha}; save it again"
                )
            return alpha / layer.base_rank if alpha and layer.base_rank else 1.0
        if layer.format is Format.PEFT or self.settings.get("peft_type") == layer.format.name:
            return peft_scale(
                f"{self.header.where}: layer {shown(layer.module)}", self.settings, layer.module, layer.base_rank
            )
        return 1.0


def pick(matrix: Tensor, rows: Rows) -> Tensor:
    """The named rows of a matrix, in their order."""
    return matrix if rows == ((0, len(matrix)),) else torch.cat([matrix[start:end] for start, end in rows])
