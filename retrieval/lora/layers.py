"""The layers of a LoRA, put together from the names and shapes in its header."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora.factors import ALGORITHMS, LARGEST_FACTOR, Shape, Size
from loradex.retrieval.lora.family import families_of
from loradex.retrieval.lora.formats import Format
from loradex.retrieval.lora.layer_names import Rows, name_layers
from loradex.retrieval.lora.layer_names.cloneofsimo import Targets, name_positions
from loradex.retrieval.lora.layout import CACHED_LAYOUTS, Layout
from loradex.retrieval.lora.modules import Contents, Module, gather
from loradex.retrieval.lora.problems import UNREAD, describe, shown


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the base model, and the tensors that its update is made of.

    Attributes:
        module: the module as the file names it; a fused one holds several layers.
        format: how the module is written.
        parts: role -> name of a tensor.
        rows: the rows of the module's update that are this layer's.
        size: of the module's update.
        base_rank: what alpha is divided by, or 0 where it has no effect.
    """

    module: str
    format: Format
    parts: dict[str, str]
    rows: Rows
    size: Size
    base_rank: int

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in); kernels are laid out flat, (out, in * k * k)."""
        return sum(end - start for start, end in self.rows), self.size.width

    @property
    def needed(self) -> dict[str, str]:
        """The parts that make the update and its scale."""
        return {
            role: name for role, name in self.parts.items() if role in ALGORITHMS[self.format].roles or role == "alpha"
        }

    @property
    def whole(self) -> bool:
        """Whether the layer is all of its module."""
        return self.rows == ((0, self.size.out),)


@dataclass(frozen=True, eq=False)
class Layers:
    """What the header of one file holds.

    Attributes:
        format: that of most layers.
        trees: the architectures whose names fit, the likeliest first.
        layers: by diffusers' name, sorted.
        strange: the layers that keep the file's own names.
        problems: what is not read, or doubtful, one short line each.
    """

    format: Format
    trees: list[str]
    layers: dict[str, Layer]
    strange: frozenset[str]
    problems: list[str]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of every layer."""
        return {name: layer.shape for name, layer in self.layers.items()}

    @cached_property
    def ranks(self) -> list[int]:
        """The distinct ranks, ascending."""
        return sorted({layer.size.rank for layer in self.layers.values()})

    @cached_property
    def families(self) -> list[str]:
        """The families of base models that fit the names and shapes, the likeliest first."""
        known = {name: shape for name, shape in self.shapes.items() if name not in self.strange}
        return families_of(known, self.trees, [self.layers[name].module for name in known])


@lru_cache(CACHED_LAYOUTS)
def read_layers(layout: Layout, counted: Targets = ("", "")) -> Layers:
    """Find the layers of a file; one with the layout of a file before gets the same object.

    Args:
        layout: its tensors.
        counted: the classes of modules that the metadata of cloneofsimo's files name, in the U-Net and in the text encoder.

    Raises:
        FileCorrupt: parts are missing or do not fit.
        FileUnsupported: there is no update that can be read.
    """
    contents = gather(layout)
    twice: list[str] = []
    updates = measure_all(layout, contents, twice)
    if not updates:
        kinds = (
            ", ".join(contents.unread)
            or f"{len(layout.tensors)} tensors such as {shown(next(iter(layout.tensors), 'none'))}"
        )
        raise FileUnsupported(
            f"expected LoRA factors (lora.down/up, lora_A/B, hada, lokr, diff), found {kinds}; choose another file"
        )
    paths = positional_paths(updates, counted)
    naming = name_layers({paths[module]: (layer.size.out, layer.size.width) for module, layer in updates.items()})
    layers = place({paths[module]: layer for module, layer in updates.items()}, naming.layers, twice)
    formats = Counter(layer.format for layer in layers.values())
    strange = [name for module in naming.strange for name, _ in naming.layers[module]]
    problems = describe(contents.unread, contents.unknown, strange, twice)
    return Layers(
        max(formats, key=lambda form: formats[form]),
        list(naming.trees),
        dict(sorted(layers.items())),
        frozenset(strange),
        problems,
    )


def measure_all(layout: Layout, contents: Contents, twice: list[str]) -> dict[str, Layer]:
    """Each module as one layer, by its name; what is left out goes into ``contents`` and ``twice``."""
    updates: dict[str, Layer] = {}
    first: FileUnsupported | None = None
    for module in contents.modules:
        if not module.readable:
            contents.unknown += module.parts.values()
        elif module.name in updates:
            if module.format is Format.FULL:
                contents.skip("diff", module.name)
            elif module.adapter:
                contents.skip("adapter", module.name)
            else:
                twice.append(module.name)
        else:
            try:
                updates[module.name] = measure(layout, module)
            except FileUnsupported as error:
                first = first or error
                contents.skip("too large", module.name)
                continue
            for role in UNREAD:
                if role in module.parts and role not in ALGORITHMS[module.format].roles:
                    contents.skip(role, module.name)
    if first and not updates:
        raise first
    return updates


def measure(layout: Layout, module: Module) -> Layer:
    """The module as one layer, its shapes checked."""
    where = f"layer {shown(module.name)}"
    shapes: dict[str, Shape] = {role: layout.tensors[name].shape for role, name in module.parts.items()}
    alpha = shapes.pop("alpha", ())
    if alpha not in ((), (1,)):
        raise FileCorrupt(f"{where}: expected one number as alpha, found shape {alpha}; save it again")
    for role, shape in shapes.items():
        if math.prod(max(side, 1) for side in shape) > LARGEST_FACTOR:  # torch counts the strides of empty tensors too
            raise FileUnsupported(
                f"{where}: expected up to {LARGEST_FACTOR} numbers a tensor, found {role} of shape {str(shape)[:80]}; choose another file"
            )
    algorithm = ALGORITHMS[module.format]
    size = algorithm.measure(where, shapes)
    return Layer(module.name, module.format, module.parts, ((0, size.out),), size, algorithm.base_rank(shapes))


def positional_paths(updates: Mapping[str, Layer], counted: Targets) -> dict[str, str]:
    """The path of each module: its name, but for files that only count them."""
    numbered = [name for name, layer in updates.items() if layer.format is Format.CLONEOFSIMO]
    return {name: name for name in updates} | (name_positions(numbered, counted) if numbered else {})


def place(
    updates: Mapping[str, Layer], names: Mapping[str, list[tuple[str, Rows]]], twice: list[str]
) -> dict[str, Layer]:
    """The layers by their name; of two with one name, modules that are not fused and paths with dots go first."""
    layers: dict[str, Layer] = {}
    for path in sorted(updates, key=lambda path: (len(names[path]), "." not in path, path)):
        module = updates[path]
        for name, rows in names[path]:
            if name in layers:
                twice.append(name)
            else:
                layers[name] = replace(module, rows=rows)
    return layers
