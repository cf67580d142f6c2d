"""The layers of a LoRA, put together from the names and shapes in its header."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from retrieval.errors import FileCorrupt, FileUnsupported
from retrieval.lora.factors import ALGORITHMS, Shape, Size
from retrieval.lora.header import Header
from retrieval.lora.keys import Format, Part, split_name
from retrieval.lora.names import Rows, name_layers
from retrieval.lora.positional import name_positions

MOST_TENSORS = 50_000
LONGEST_SHOWN = 160
SHARED = ("alpha", "magnitude")  # by all adapters of a module
OWN_ADAPTERS = ("", "default", "default_0")
UNREAD = {
    "magnitude": "DoRA's magnitudes of {} layers need the base model; only the low-rank part is read",
    "a1": "GLoRA's products of {} layers need the base model; only the low-rank part beside them is read",
    "bias": "biases of {} layers are not read",
    "norm": "changes of {} norms are not read",
    "replacement": "replaced weights of {} layers need the base model and are not read",
    "embedding": "{} embeddings are not read",
    "too large": "{} layers of too large a rank are not read",
    "adapter": "{} layers belong to further adapters, which are not read",
    "diff": "full differences of {} layers beside a LoRA are not read",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the base model, and the tensors that its update is made of.

    Attributes:
        module: the module as the file names it; a fused one holds several layers.
        format: how the module is written.
        parts: role -> name of a tensor.
        rows: the rows of the module's update that are this layer's.
        size: of the module's update.
    """

    module: str
    format: Format
    parts: dict[str, str]
    rows: Rows
    size: Size

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in); kernels are laid out flat, (out, in * k * k)."""
        return sum(end - start for start, end in self.rows), self.size.width

    @property
    def needed(self) -> dict[str, str]:
        """The parts that make the update and its scale."""
        return {role: name for role, name in self.parts.items() if role in ALGORITHMS[self.format].roles or role == "alpha"}

    @property
    def whole(self) -> bool:
        """Whether the layer is all of its module."""
        return self.rows == ((0, self.size.out),)


@dataclass(frozen=True, slots=True)
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


@dataclass(slots=True)
class Module:
    """The tensors of one module of one adapter."""

    name: str
    adapter: str
    roles: dict[str, str] = field(default_factory=dict)
    formats: dict[str, Format] = field(default_factory=dict)

    @property
    def format(self) -> Format | None:
        """The format of the parts that make an update."""
        return next((form for role, form in self.formats.items() if role in ALGORITHMS[form].roles), None)

    def parts(self, form: Format) -> dict[str, str]:
        """The parts that belong to the update, and alpha and magnitude."""
        return {role: name for role, name in self.roles.items() if self.formats.get(role) is form or role in SHARED}


def read_layers(header: Header) -> Layers:
    """Find the layers of a file.

    Raises:
        FileCorrupt: parts are missing or do not fit.
        FileUnsupported: there is no update that can be read.
    """
    if len(header.tensors) > MOST_TENSORS:
        raise FileUnsupported(f"{header.path}: expected a LoRA of up to {MOST_TENSORS} tensors, found {len(header.tensors)}; choose another file")
    modules, unread, unknown = group(header)
    updates: dict[str, Layer] = {}
    too_large: list[FileUnsupported] = []
    for module in sorted(modules, key=lambda module: (module.adapter not in OWN_ADAPTERS, module.adapter)):
        form = module.format
        if form is None:
            unknown += module.roles.values()
        elif module.name in updates:
            unread["adapter"] += 1
        else:
            try:
                updates[module.name] = measured(header, module, form)
            except FileUnsupported as error:
                too_large.append(error)
                continue
            unread.update(role for role in module.roles if role in UNREAD and role not in ALGORITHMS[form].roles)
    if too_large and not updates:
        raise too_large[0]
    unread.update({"too large": len(too_large)} if too_large else {})
    if not updates:
        kinds = ", ".join(unread) or f"{len(header.tensors)} tensors such as {shown(next(iter(header.tensors), 'none'))}"
        raise FileUnsupported(f"{header.path}: expected LoRA factors (lora.down/up, lora_A/B, hada, lokr, diff), found {kinds}; choose another file")
    paths = positional_paths(header, updates)
    naming = name_layers({paths[module]: (layer.size.out, layer.size.width) for module, layer in updates.items()})
    layers, twice = placed({paths[module]: layer for module, layer in updates.items()}, naming.layers)
    formats = Counter(layer.format for layer in layers.values())
    strange = [name for module in naming.strange for name, _ in naming.layers[module]]
    return Layers(
        max(formats, key=lambda form: formats[form]),
        list(naming.trees),
        dict(sorted(layers.items())),
        frozenset(strange),
        describe(unread, unknown, strange, twice),
    )


def group(header: Header) -> tuple[list[Module], Counter[str], list[str]]:
    """The modules of a file, the roles that cannot be read, and the tensors that no rule knows."""
    modules: dict[tuple[str, str], Module] = {}
    shared: dict[tuple[str, str], str] = {}
    unread: Counter[str] = Counter()
    unknown = []
    parts: dict[str, Part | None] = {name: split_name(name) for name in header.tensors}
    multiplied = {part.module for part in parts.values() if part and part.role == "multiplier (IA3)"}
    for name, part in parts.items():
        if part is None:
            if name.removesuffix(".weight") not in multiplied:
                unknown.append(name)
        elif part.format is Format.FULL and len(header.tensors[name].shape) < 2:
            unread["norm"] += 1
        elif part.format is None and part.role in SHARED:
            shared[part.module, part.role] = name
        elif part.format is None or (part.format is Format.PEFT and part.role in ("bias", "embedding")):
            unread[part.role] += 1
        else:
            module = modules.setdefault((part.module, part.adapter), Module(part.module, part.adapter))
            module.roles[part.role] = name
            module.formats[part.role] = part.format
    for module in modules.values():
        module.roles |= {role: shared[module.name, role] for role in SHARED if (module.name, role) in shared}
    used = {name for module in modules.values() for name in module.roles.values()}
    return list(modules.values()), unread, unknown + [name for name in shared.values() if name not in used]


def measured(header: Header, module: Module, form: Format) -> Layer:
    """The module as one layer, its shapes checked."""
    parts = module.parts(form)
    where = f"{header.path}: layer {shown(module.name)}"
    shapes: dict[str, Shape] = {role: header.tensors[name].shape for role, name in parts.items() if role != "alpha"}
    size = ALGORITHMS[form].measure(where, shapes)
    if "alpha" in parts and header.tensors[parts["alpha"]].shape not in ((), (1,)):
        raise FileCorrupt(f"{where}: expected one number as alpha, found shape {header.tensors[parts['alpha']].shape}; save it again")
    return Layer(module.name, form, parts, ((0, size.out),), size)


def positional_paths(header: Header, updates: Mapping[str, Layer]) -> dict[str, str]:
    """The path of each module: its name, but for files that only count them."""
    counted = [name for name, layer in updates.items() if layer.format is Format.CLONEOFSIMO]
    return {name: name for name in updates} | (name_positions(str(header.path), counted, header.metadata) if counted else {})


def placed(updates: Mapping[str, Layer], names: Mapping[str, list[tuple[str, Rows]]]) -> tuple[dict[str, Layer], list[str]]:
    """The layers by their name, and those that stand in the file twice: unfused modules and dotted paths go first."""
    layers: dict[str, Layer] = {}
    twice = []
    for path in sorted(updates, key=lambda path: (len(names[path]), "." not in path, path)):
        module = updates[path]
        for name, rows in names[path]:
            if name in layers:
                twice.append(name)
            else:
                layers[name] = Layer(module.module, module.format, module.parts, rows, module.size)
    return layers, twice


def shown(name: str) -> str:
    """A name from a file for a message: short, and on one line."""
    return name[:LONGEST_SHOWN] if name.isprintable() else ascii(name[:LONGEST_SHOWN])


def describe(unread: Counter[str], unknown: list[str], strange: list[str], twice: list[str]) -> list[str]:
    """One line for each kind of thing that is not read, or read with a doubt."""
    lines = [UNREAD.get(role, f"{role} of {{}} layers: needs the base model and is not read").format(count) for role, count in unread.items()]
    if twice:
        lines.append(f"{len(twice)} layers stand in the file twice, such as {shown(twice[0])}; one of each is read")
    if strange:
        lines.append(f"{len(strange)} layers keep the file's own names, such as {shown(strange[0])}")
    if unknown:
        lines.append(f"{len(unknown)} tensors are not understood, such as {shown(unknown[0])}")
    return lines
