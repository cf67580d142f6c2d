"""The true sizes of diffusion transformers: which layers each has, in which shapes, and how many blocks.

``sizes.json``, which ``scripts/layer_sizes.py`` makes from diffusers' classes and the public configurations, lists the
layers in diffusers' names, with ``#`` for numbers, by their shape (out, in); 0 stands for any side, as variants for
editing and control widen the input. What a LoRA changes fits a size if the size has all its layers in their shapes.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from loradex.retrieval.lora.layer_names.rules import CACHED_NAMES, split_path

SIZES_FILE: Final = Path(__file__).with_name("sizes.json")
Shape = tuple[int, int]  # (out, in)


@dataclass(slots=True)
class LayerSet:
    """The layers of a file by the patterns of their names.

    Attributes:
        shapes: by pattern, the layers of each shape.
        blocks: by kind, the numbers of the blocks that hold a layer.
    """

    shapes: dict[str, dict[Shape, list[str]]] = field(default_factory=dict)
    blocks: dict[str, set[int]] = field(default_factory=dict)
    size: int = 0

    @classmethod
    def of(cls, layers: Iterable[tuple[str, Shape]]) -> "LayerSet":
        """The set of some layers (name, shape)."""
        found = cls()
        shapes, blocks = found.shapes, found.blocks
        for layer, shape in layers:
            pattern, kind, number = describe_layer(layer)
            found.size += 1
            by_shape = shapes.get(pattern)
            if by_shape is None:
                by_shape = shapes[pattern] = {}
            if shape in by_shape:
                by_shape[shape].append(layer)
            else:
                by_shape[shape] = [layer]
            if kind:
                if kind in blocks:
                    blocks[kind].add(number)
                else:
                    blocks[kind] = {number}
        return found

    def named(self, patterns: Iterable[str]) -> list[str]:
        """The layers of some patterns."""
        return [layer for pattern in patterns for layers in self.shapes[pattern].values() for layer in layers]

    def count(self, patterns: Iterable[str]) -> int:
        """The number of layers of some patterns."""
        return sum(len(layers) for pattern in patterns for layers in self.shapes[pattern].values())


@dataclass(frozen=True, slots=True)
class ModelSize:
    """One size of a model.

    Attributes:
        name: of the family, or of a model that belongs to none.
        blocks: number of blocks by kind, the pattern before the number.
        shapes: those of the layers by pattern.
    """

    name: str
    blocks: dict[str, int]
    shapes: dict[str, frozenset[Shape]]

    def has_shape(self, pattern: str, shape: Shape) -> bool:
        """Whether layers of this pattern have the shape."""
        return any(side in (0, shape[0]) and width in (0, shape[1]) for side, width in self.shapes[pattern])

    def contradiction(self, layers: LayerSet) -> str | None:
        """A layer whose shape the model does not have, or a block that it does not have; None if there is none.

        Layers of names that the model does not have are left out of account.
        """
        for kind, numbers in layers.blocks.items():
            number = max(numbers)
            if number >= self.blocks.get(kind, number + 1):
                return f"block {number} of {kind}"
        for pattern, found in layers.shapes.items():
            if pattern in self.shapes:
                for shape, names in found.items():
                    if not self.has_shape(pattern, shape):
                        return f"{names[0]} of shape {shape}"
        return None

    def has_layers(self, layers: LayerSet) -> bool:
        """Whether the model has all these layers."""
        return not self.strangers(layers) and self.contradiction(layers) is None

    def strangers(self, layers: LayerSet) -> list[str]:
        """The patterns of layers that the model does not have."""
        return [pattern for pattern in layers.shapes if pattern not in self.shapes]

    def count_full_kinds(self, layers: LayerSet) -> int:
        """Count the kinds of blocks whose last block among the layers is the model's last."""
        return sum(self.blocks.get(kind) == max(numbers) + 1 for kind, numbers in layers.blocks.items())

    def has_just_these_blocks(self, layers: LayerSet) -> bool:
        """Whether the layers are in all blocks of the model, of some kinds, and in no others."""
        kinds = [kind for kind in layers.blocks if kind in self.blocks]
        return bool(kinds) and all(len(layers.blocks[kind]) == self.blocks[kind] for kind in kinds)


@lru_cache(CACHED_NAMES)
def describe_layer(layer: str) -> tuple[str, str, int]:
    """The pattern of a layer's name, and the kind and the number of its block; "" and -1 if it is in none."""
    pattern, numbers = split_path(layer)
    kind, _, rest = pattern.partition("_#_")
    return (pattern, kind, int(numbers[0])) if rest else (pattern, "", -1)


def read_sizes(entries: Mapping[str, list[dict[str, Any]]]) -> dict[str, tuple[ModelSize, ...]]:
    """The sizes of one part of ``SIZES_FILE``, by name."""
    return {name: tuple(read_size(name, entry) for entry in sizes) for name, sizes in entries.items()}


def read_size(name: str, entry: Mapping[str, Any]) -> ModelSize:
    """One size, as ``SIZES_FILE`` has it."""
    shapes: dict[str, set[Shape]] = {}
    for text, layers in entry["layers"].items():
        out, _, width = text.partition("x")
        for layer in layers.split():
            shapes.setdefault(split_path(layer)[0], set()).add((int(out), int(width)))
    blocks = {split_path(kind)[0]: count for kind, count in entry["blocks"].items()}
    return ModelSize(name, blocks, {pattern: frozenset(found) for pattern, found in shapes.items()})


_DOCUMENT: Final = json.loads(SIZES_FILE.read_text("utf-8"))
SIZES: Final = read_sizes(_DOCUMENT["families"])
OTHER_SIZES: Final = read_sizes(_DOCUMENT["others"])  # of models that belong to no family
