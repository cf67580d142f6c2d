"""The tensors of a file, gathered by the module that they change."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from loradex.retrieval.lora.factors import ALGORITHMS
from loradex.retrieval.lora.formats import Format, split_name
from loradex.retrieval.lora.layout import UNREADABLE, Layout
from loradex.retrieval.lora.problems import STRANGE_NUMBERS

SHARED: Final = ("alpha", "magnitude")  # named without the adapter or the format
OWN_ADAPTERS: Final = ("", "default", "default_0")
IA3: Final = "multiplier (IA3)"


@dataclass(slots=True)
class Module:
    """The tensors of one module, of one adapter, in one format.

    Attributes:
        parts: role -> name of a tensor.
    """

    name: str
    adapter: str
    format: Format
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def readable(self) -> bool:
        """Whether there is a part that makes an update."""
        return not ALGORITHMS[self.format].roles.isdisjoint(self.parts)

    @property
    def order(self) -> tuple[bool, bool, str]:
        """Which of two of one name goes first: the own adapter, and a LoRA before a full difference."""
        return self.adapter not in OWN_ADAPTERS, self.format is Format.FULL, self.adapter


@dataclass(slots=True)
class Contents:
    """All tensors of a file.

    Attributes:
        modules: what may be read.
        unread: a kind of part that cannot be read -> the modules that have it.
        unknown: tensors that no rule knows.
    """

    modules: list[Module] = field(default_factory=list)
    unread: dict[str, set[str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def skip(self, kind: str, module: str) -> None:
        """Note that a part of a module is not read."""
        self.unread.setdefault(kind, set()).add(module)


def gather(layout: Layout) -> Contents:
    """The modules of a file, and what belongs to none that can be read."""
    contents = Contents()
    modules: dict[tuple[str, str, Format], Module] = {}
    shared: dict[tuple[str, str], str] = {}
    weights = []
    for name in layout.tensors:
        part = split_name(name)
        if part is None:
            weights.append(name)
        elif part.format is None and part.role in SHARED:
            shared[part.module, part.role] = name
        elif part.format is Format.FULL and len(layout.tensors[name].shape) < 2:
            contents.skip("norm", part.module)
        elif part.format is None or part.role in ("bias", "embedding"):
            contents.skip(part.role, part.module)
        else:
            module = modules.setdefault(
                (part.module, part.adapter, part.format), Module(part.module, part.adapter, part.format)
            )
            module.parts[part.role] = name
    used = set()
    for module in modules.values():
        for role in SHARED:
            if (module.name, role) in shared:
                module.parts.setdefault(role, shared[module.name, role])
                used.add((module.name, role))
    multiplied = contents.unread.get(IA3, set())
    contents.unknown += [name for name in weights if name.removesuffix(".weight") not in multiplied]
    contents.unknown += [name for key, name in shared.items() if key not in used]
    contents.modules = sorted(set_apart(layout, contents, modules.values()), key=lambda module: module.order)
    return contents


def set_apart(layout: Layout, contents: Contents, modules: Iterable[Module]) -> Iterator[Module]:
    """The modules of real numbers in whole bytes; that there are others is noted."""
    for module in modules:
        if any(layout.tensors[name].dtype in UNREADABLE for name in module.parts.values()):
            contents.skip(STRANGE_NUMBERS, module.name)
        else:
            yield module
