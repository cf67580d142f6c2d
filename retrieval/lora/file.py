"""A LoRA file: opening reads its header alone; updates read the bytes of the layers that are asked for."""

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
from loradex.retrieval.lora.facts import Facts, read_facts
from loradex.retrieval.lora.family import choose_family, family_doubts
from loradex.retrieval.lora.formats import Format
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.layer_names.cloneofsimo import target_classes
from loradex.retrieval.lora.layers import Layer, ParsedLayers, parse_layers
from loradex.retrieval.lora.peft_config import ignored_patterns, peft_scale, read_peft_config
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.lora.update import Update, select_rows

MAX_WEIGHT: Final = 1e12  # products over a layer of such weights are still finite
FORMATS_OF_PEFT: Final = (Format.PEFT, Format.LOHA, Format.LOKR)


@dataclass(frozen=True)
class LoraFile:
    """A LoRA.

    Attributes:
        parsed: its layers, as the header shows them.
        peft_config: PEFT's config, if the format has one.
    """

    header: Header
    parsed: ParsedLayers
    peft_config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path) -> "LoraFile":
        """Read the header of a file.

        Raises:
            FileError: it is missing, unsafe or corrupt, or holds no update that can be read.
        """
        return cls.from_header(Header.read(Path(path)))

    @classmethod
    def from_header(cls, header: Header) -> "LoraFile":
        """The LoRA of a file whose header was read.

        Raises:
            FileError: it contradicts itself, or holds no update that can be read.
        """
        with located(header.display_name):
            parsed = parse_layers(header.layout, target_classes(header.metadata))
        return cls(header, parsed, read_peft_config(header) if parsed.format in FORMATS_OF_PEFT else {})

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.header.path

    @property
    def format(self) -> Format:
        """Format of most layers."""
        return self.parsed.format

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers by their names in diffusers, sorted."""
        return self.parsed.layers

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape (out, in) of every layer; kernels of convolutions are flattened, (out, in * k * k)."""
        return self.parsed.shapes

    @property
    def ranks(self) -> list[int]:
        """The distinct ranks of the updates, ascending; for LoHa and LoKr, of the products."""
        return self.parsed.ranks

    @property
    def families(self) -> list[str]:
        """The families of base models that fit the names and shapes, the likeliest first."""
        return self.parsed.families

    @property
    def family(self) -> str:
        """Family of the base model, or ``unknown``."""
        return choose_family(self.families, self.header.metadata)

    @property
    def problems(self) -> list[str]:
        """What of the file is skipped or doubtful, one short line each."""
        lines = list(self.parsed.problems)
        lines += family_doubts(self.parsed.family_fit, self.header.metadata)
        ignored = ignored_patterns(self.peft_config)
        if ignored:
            lines.append(f"alpha_pattern {ignored[0][:80]!r} is a regular expression, which is not run")
        return lines

    @cached_property
    def facts(self) -> Facts:
        """What people and trainers wrote into its metadata and side-cars; read on first use."""
        return read_facts(self.path, self.header.metadata)

    @cached_property
    def scales(self) -> list[float]:
        """The distinct scales of the layers, ascending; reads only the alphas."""
        tensors = self.header.load({layer.parts["alpha"] for layer in self.layers.values() if "alpha" in layer.parts})
        return sorted({self._scale(layer, tensors) for layer in self.layers.values()})

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the whole file with its header, as sites that host LoRAs list it."""
        with self.header.open_file() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 (hex) of the stored factors and scales, in the order of the layers' names in diffusers.

        It is made of layers, not of tensors, and a fused module counts as its layers: header, names of tensors and name
        of the file do not change it. Tensors that belong to no update do not count.
        """
        digest = hashlib.sha256()
        for name, layer in self.layers.items():
            tensors = self.header.load(set(layer.parts.values()))
            digest.update(f"{name} {layer.shape}".encode() + struct.pack("<d", self._scale(layer, tensors)))
            for role in sorted(layer.parts.keys() - {"alpha"}):
                tensor = tensors[layer.parts[role]]
                fused = role == "up" and not layer.is_whole_module
                matrix = tensor.flatten(1) if tensor.dim() > 1 else tensor.flatten()
                matrix = select_rows(matrix, layer.rows) if fused else matrix
                digest.update(f" {role} {tensor.dtype} {tuple(matrix.shape)}\n".encode())
                digest.update(matrix.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def id(self) -> str:
        """Id made of the weights, which a moved or renamed file keeps."""
        return self.data_hash[:20]

    def scale(self, layer: str) -> float:
        """The factor of up @ down: alpha / rank if the file or PEFT's config has an alpha, else 1.

        Raises:
            FileCorrupt: the alpha is not a finite number.
        """
        parts = self.layers[layer].parts
        return self._scale(self.layers[layer], self.header.load([parts["alpha"]] if "alpha" in parts else []))

    def updates(self, layers: Collection[str] | None = None) -> dict[str, Update]:
        """Read the updates of the named layers, or of all, and no other bytes.

        Raises:
            FileCorrupt: a layer is missing, or holds NaN or infinity.
        """
        names = self.layers if layers is None else layers
        missing = [layer for layer in names if layer not in self.layers]
        if missing:
            raise FileCorrupt(
                f"{self.header.display_name}: expected layer {missing[0]}, found {len(self.layers)} others; the LoRA was trained on fewer layers"
            )
        tensors = self.header.load({tensor for name in names for tensor in self.layers[name].update_parts.values()})
        return {name: self._update(name, tensors) for name in names}

    def iter_updates(self) -> Iterator[tuple[str, Update]]:
        """Read the updates of all layers, with no more than one in memory.

        Raises:
            FileCorrupt: a layer holds NaN or infinity.
        """
        for layer in self.layers:
            yield layer, self.updates([layer])[layer]

    def _update(self, name: str, tensors: Mapping[str, Tensor]) -> Update:
        """The update of one layer from the tensors of its parts."""
        layer = self.layers[name]
        parts = {role: tensors[tensor] for role, tensor in layer.update_parts.items() if role != "alpha"}
        update = ALGORITHMS[layer.format].to_update(parts).part(layer.rows, self._scale(layer, tensors))
        if not update.largest <= MAX_WEIGHT:
            fault = f"expected finite weights up to {MAX_WEIGHT:.0e}, found NaN, infinity or larger ones"
            raise FileCorrupt(f"{self.header.display_name}: layer {printable(name)}: {fault}; the training run broke")
        return update

    def _scale(self, layer: Layer, tensors: Mapping[str, Tensor]) -> float:
        """The scale of a layer; an alpha of 0 stands for the rank, as in kohya and LyCORIS."""
        where = f"{self.header.display_name}: layer {printable(layer.module)}"
        if "alpha" in layer.parts:
            alpha = tensors[layer.parts["alpha"]].double().item()
            if not math.isfinite(alpha):
                raise FileCorrupt(f"{where}: expected a finite alpha, found {alpha}; save it again")
            return alpha / layer.alpha_divisor if alpha and layer.alpha_divisor else 1.0
        if layer.format is Format.PEFT or self.peft_config.get("peft_type") == layer.format.name:
            return peft_scale(where, self.peft_config, layer.module, layer.alpha_divisor)
        return 1.0
