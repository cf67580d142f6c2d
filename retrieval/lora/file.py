"""A LoRA file: facts from its header alone, layer updates from the bytes that are asked for."""

import hashlib
import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from retrieval.errors import FileCorrupt, FileUnsupported
from retrieval.lora.family import family_of
from retrieval.lora.header import Header
from retrieval.lora.keys import FactorKeys, Format, find_layers
from retrieval.lora.update import LayerUpdate

LARGEST_RANK = 4096


@dataclass(frozen=True)
class LoraFile:
    """One LoRA: its header, its format, and its layers by their name in diffusers."""

    header: Header
    format: Format
    layers: dict[str, FactorKeys]

    @classmethod
    def open(cls, path: str | Path) -> "LoraFile":
        """Read the header of a file.

        Raises:
            FileError: with the reason, when it is missing, unsafe, corrupt or holds no LoRA.
        """
        header = Header.read(Path(path))
        form, layers = find_layers(list(header.tensors))
        if form is None:
            example = next(iter(header.tensors), "no tensor")
            raise FileUnsupported(f"{path}: expected LoRA factors (lora.down/up, lora_A/B), found {len(header.tensors)} tensors such as {example[:80]!r}")
        for layer, keys in layers.items():
            check_factors(header, layer, keys)
        return cls(header, form, layers)

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self.header.path

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of every layer."""
        tensors = self.header.tensors
        return {layer: (tensors[keys.up].shape[0], tensors[keys.down].shape[1]) for layer, keys in self.layers.items()}

    @property
    def ranks(self) -> list[int]:
        """The distinct ranks, ascending."""
        return sorted({self.header.tensors[keys.down].shape[0] for keys in self.layers.values()})

    @cached_property
    def family(self) -> str:
        """The family of base models, by shapes."""
        return family_of(self.shapes)

    @cached_property
    def data_hash(self) -> str:
        """SHA-256 (hex) of the factors in the order of their layers: the same whatever the file's name and header."""
        digest = hashlib.sha256()
        for layer, keys in self.layers.items():
            tensors = self.header.load([keys.down, keys.up])
            for name in (keys.down, keys.up):
                info = self.header.tensors[name]
                digest.update(f"{layer} {info.dtype} {info.shape}\n".encode())
                digest.update(tensors[name].contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def id(self) -> str:
        """A name made of the weights, which a moved or renamed file keeps."""
        return self.data_hash[:20]

    def scale(self, layer: str) -> float:
        """What up @ down is multiplied by: alpha / rank where PEFT's settings say so, else 1."""
        if self.format is not Format.PEFT:
            return 1.0
        settings = self.peft_settings
        rank = self.header.tensors[self.layers[layer].down].shape[0]
        alpha = settings.get("lora_alpha", rank)
        if not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise FileCorrupt(f"{self.path}: expected a number as lora_alpha, found {str(alpha)[:40]!r}; mend adapter_config.json")
        return float(alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank)

    @cached_property
    def peft_settings(self) -> dict[str, Any]:
        """PEFT's adapter settings, from the header or from adapter_config.json beside the file."""
        text = self.header.metadata.get("lora_adapter_metadata")
        beside = self.path.with_name("adapter_config.json")
        if text is None and beside.is_file() and beside.stat().st_size < 2**20:
            text = beside.read_text("utf-8", errors="replace")
        try:
            settings = json.loads(text or "{}")
        except (ValueError, RecursionError):
            raise FileCorrupt(f"{self.path}: PEFT's settings are not valid JSON; mend adapter_config.json") from None
        return settings if isinstance(settings, dict) else {}

    def updates(self, layers: Collection[str] | None = None) -> dict[str, LayerUpdate]:
        """The updates of the named layers, or of all, reading only their bytes.

        Raises:
            FileCorrupt: a layer is missing, or holds NaN or infinity.
        """
        wanted = self.layers if layers is None else layers
        missing = [layer for layer in wanted if layer not in self.layers]
        if missing:
            raise FileCorrupt(f"{self.path}: expected layer {missing[0]}, found {len(self.layers)} others; the LoRA was trained on fewer layers")
        names = [name for layer in wanted for name in (self.layers[layer].down, self.layers[layer].up)]
        tensors = self.header.load(names)
        made = {}
        for layer in wanted:
            down, up = (tensors[name].float() for name in (self.layers[layer].down, self.layers[layer].up))
            if not (down.isfinite().all() and up.isfinite().all()):
                raise FileCorrupt(f"{self.path}: layer {layer}: expected finite weights, found NaN or infinity; the training run broke")
            made[layer] = LayerUpdate(down, up * self.scale(layer))
        return made


def check_factors(header: Header, layer: str, keys: FactorKeys) -> None:
    """Refuse factors that are not both there, or whose shapes do not multiply."""
    if not (keys.down and keys.up):
        raise FileCorrupt(f"{header.path}: layer {layer}: expected two factors, found only {keys.down or keys.up}; save it again")
    down, up = header.tensors[keys.down].shape, header.tensors[keys.up].shape
    if len(down) != 2 or len(up) != 2:
        raise FileUnsupported(f"{header.path}: layer {layer}: expected two matrices, found shapes {down} and {up}; convolutions are not read yet")
    if down[0] != up[1] or not 0 < down[0] <= LARGEST_RANK or 0 in (down[1], up[0]):
        raise FileCorrupt(f"{header.path}: layer {layer}: expected (rank, in) and (out, rank), found {down} and {up}; save it again")
