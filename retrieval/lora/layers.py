"""The layers of the base model that a LoRA changes, found from the names and shapes of the tensors in its file."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora.factors import ALGORITHMS, MAX_FACTOR_SIZE, Shape, UpdateSize
from loradex.retrieval.lora.family import FamilyFit, fit_families
from loradex.retrieval.lora.formats import Format
from loradex.retrieval.lora.layer_names import RowRanges, translate_names
from loradex.retrieval.lora.layer_names.cloneofsimo import TargetClasses, name_positions
from loradex.retrieval.lora.layout import CACHED_LAYOUTS, Layout
from loradex.retrieval.lora.modules import GroupedTensors, Module, group_tensors
from loradex.retrieval.lora.other_weights import EXPECTED, IP_ADAPTER, is_ip_adapter, why_no_lora
from loradex.retrieval.lora.problems import SKIPPED, describe_problems, printable


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the base model, and the tensors of its update.

    Attributes:
        module: the module as the file names it; a fused module holds several layers.
        format: of the module.
        parts: name of a tensor by its role.
        rows: the rows of the module's update that belong to this layer.
        size: of the module's update.
        alpha_divisor: the number that alpha is divided by, or 0 if alpha has no effect.
    """

    module: str
    format: Format
    parts: dict[str, str]
    rows: RowRanges
    size: UpdateSize
    alpha_divisor: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (out, in) of the layer; kernels are flattened, (out, in * k * k)."""
        return sum(end - start for start, end in self.rows), self.size.width

    @property
    def update_parts(self) -> dict[str, str]:
        """The parts that make the update and its scale."""
        roles = ALGORITHMS[self.format].roles
        return {role: name for role, name in self.parts.items() if role in roles or role == "alpha"}

    @property
    def is_whole_module(self) -> bool:
        """Whether the layer takes all rows of its module in their order."""
        return self.rows == ((0, self.size.out),)


@dataclass(frozen=True, eq=False)
class ParsedLayers:
    """The layers of a LoRA, as the layout of its file shows them.

    Attributes:
        format: that of most layers.
        architectures: those that the layers' names fit, the likeliest first.
        layers: by their names in diffusers, sorted.
        untranslated: the layers that keep the file's own names.
        problems: what is skipped or doubtful, one short line each.
    """

    format: Format
    architectures: list[str]
    layers: dict[str, Layer]
    untranslated: frozenset[str]
    problems: list[str]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape (out, in) of every layer."""
        return {name: layer.shape for name, layer in self.layers.items()}

    @cached_property
    def ranks(self) -> list[int]:
        """The distinct ranks, ascending."""
        return sorted({layer.size.rank for layer in self.layers.values()})

    @cached_property
    def family_fit(self) -> FamilyFit:
        """The families of base models that fit the names and shapes, and the doubts about them."""
        modules = [layer.module for layer in self.layers.values()]
        return fit_families(self.shapes, self.architectures, modules, self.untranslated)

    @property
    def families(self) -> list[str]:
        """The families of base models that fit the names and shapes, the likeliest first."""
        return self.family_fit.families


@lru_cache(CACHED_LAYOUTS)
def parse_layers(layout: Layout, targets: TargetClasses = ("", "")) -> ParsedLayers:
    """Find the layers of a file; files with the same layout object get the same result, from a cache.

    Args:
        layout: of the file.
        targets: the classes of modules that cloneofsimo's trainer counted, from the metadata.

    Raises:
        FileCorrupt: parts of an update are missing or do not fit together.
        FileUnsupported: there is no update that can be read.
    """
    if is_ip_adapter(layout.tensors):
        raise FileUnsupported(f"{EXPECTED}, found {IP_ADAPTER.description}; {IP_ADAPTER.mend}")
    grouped = group_tensors(layout)
    duplicates: list[str] = []
    modules = measure_modules(layout, grouped, duplicates)
    if not modules:
        raise FileUnsupported(why_no_lora(layout.tensors, grouped.skipped))
    paths, doubts = module_paths(modules, targets)
    modules_by_path = {paths[name]: module for name, module in modules.items()}
    names = translate_names({path: (layer.size.out, layer.size.width) for path, layer in modules_by_path.items()})
    layers = split_modules(modules_by_path, names.layers, duplicates)
    formats = Counter(layer.format for layer in layers.values())
    untranslated = [name for module in names.untranslated for name, _ in names.layers[module]]
    problems = describe_problems(grouped.skipped, grouped.unrecognized, untranslated, duplicates) + doubts
    return ParsedLayers(
        max(formats, key=lambda format: formats[format]),
        list(names.architectures),
        dict(sorted(layers.items())),
        frozenset(untranslated),
        problems,
    )


def measure_modules(layout: Layout, grouped: GroupedTensors, duplicates: list[str]) -> dict[str, Layer]:
    """Measure the update of each module, and take the modules as layers, by their names in the file.

    Modules and parts that are left out are added to ``grouped`` and ``duplicates``.
    """
    measured: dict[str, Layer] = {}
    first_error: FileUnsupported | None = None
    for module in grouped.modules:
        if not module.has_update:
            grouped.unrecognized += module.parts.values()
        elif module.name in measured:
            if module.format is Format.FULL:
                grouped.skip("diff", module.name)
            elif module.adapter:
                grouped.skip("adapter", module.name)
            else:
                duplicates.append(module.name)
        else:
            try:
                measured[module.name] = measure_module(layout, module)
            except FileUnsupported as error:
                first_error = first_error or error
                grouped.skip("too large", module.name)
                continue
            for role in SKIPPED:
                if role in module.parts and role not in ALGORITHMS[module.format].roles:
                    grouped.skip(role, module.name)
    if first_error and not measured:
        raise first_error
    return measured


def measure_module(layout: Layout, module: Module) -> Layer:
    """Check the shapes of a module's parts, and take it as one layer."""
    where = f"layer {printable(module.name)}"
    shapes: dict[str, Shape] = {role: layout.tensors[name].shape for role, name in module.parts.items()}
    alpha = shapes.pop("alpha", ())
    if math.prod(alpha) != 1:
        raise FileCorrupt(f"{where}: expected one number as alpha, found shape {alpha}; save it again")
    for role, shape in shapes.items():
        if math.prod(filter(None, shape)) > MAX_FACTOR_SIZE:  # torch computes the strides of empty tensors too
            raise FileUnsupported(
                f"{where}: expected up to {MAX_FACTOR_SIZE} numbers a tensor, found {role} of shape {str(shape)[:80]}; choose another file"
            )
    algorithm = ALGORITHMS[module.format]
    size = algorithm.measure(where, shapes)
    return Layer(module.name, module.format, module.parts, ((0, size.out),), size, algorithm.alpha_divisor(shapes))


def module_paths(modules: Mapping[str, Layer], targets: TargetClasses) -> tuple[dict[str, str], list[str]]:
    """The path of each module, and doubts: its name, or for cloneofsimo's numbered modules that at the position."""
    paths = {name: name for name in modules}
    numbered = {name: module.shape for name, module in modules.items() if module.format is Format.CLONEOFSIMO}
    if not numbered:
        return paths, []
    named = name_positions(numbered, targets)
    return paths | named.paths, named.doubts


def split_modules(
    modules: Mapping[str, Layer], names: Mapping[str, list[tuple[str, RowRanges]]], duplicates: list[str]
) -> dict[str, Layer]:
    """Split fused modules into their layers, by the layers' names.

    Of two layers with one name, that of a module that is not fused, and of a path with dots, is taken; the other is
    added to ``duplicates``.
    """
    layers: dict[str, Layer] = {}
    for path in sorted(modules, key=lambda path: (len(names[path]), "." not in path, path)):
        for name, rows in names[path]:
            if name in layers:
                duplicates.append(name)
            else:
                module = modules[path]
                layers[name] = module if rows == module.rows else replace(module, rows=rows)
    return layers
