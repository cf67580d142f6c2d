"""The tensors of a file, grouped by the module that they change."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from loradex.retrieval.lora.factors import ALGORITHMS
from loradex.retrieval.lora.formats import MULTIPLIER, Format, split_tensor_name
from loradex.retrieval.lora.layout import UNREADABLE_DTYPES, Layout
from loradex.retrieval.lora.problems import ODD_NUMBERS, QUANTISED
from loradex.retrieval.lora.quantised import Quantisation, is_quantiser_name

SHARED_ROLES: Final = ("alpha", "magnitude")  # their names hold neither the adapter nor the format
DEFAULT_ADAPTERS: Final = ("", "default", "default_0")


@dataclass(slots=True)
class Module:
    """The tensors of one module, of one adapter, in one format.

    Attributes:
        parts: name of a tensor by its role.
    """

    name: str
    adapter: str
    format: Format
    parts: dict[str, str] = field(default_factory=dict)

    @property
    def has_update(self) -> bool:
        """Whether a part belongs to an update that can be read."""
        return not ALGORITHMS[self.format].roles.isdisjoint(self.parts)

    @property
    def sort_key(self) -> tuple[bool, bool, str]:
        """Puts the default adapter first, and a LoRA before a full difference of the same module."""
        return self.adapter not in DEFAULT_ADAPTERS, self.format is Format.FULL, self.adapter


@dataclass(slots=True)
class GroupedTensors:
    """All tensors of a file.

    Attributes:
        modules: those that may have an update.
        skipped: by kind of part that cannot be read, the modules that have it.
        unrecognized: tensors that belong to no known format.
    """

    modules: list[Module] = field(default_factory=list)
    skipped: dict[str, set[str]] = field(default_factory=dict)
    unrecognized: list[str] = field(default_factory=list)

    def skip(self, kind: str, module: str) -> None:
        """Record that a part of a module is not read."""
        self.skipped.setdefault(kind, set()).add(module)


def group_tensors(layout: Layout) -> GroupedTensors:
    """Group the tensors of a file by module, and sort out what cannot be read."""
    grouped = GroupedTensors()
    modules: dict[tuple[str, str, Format], Module] = {}
    shared: dict[tuple[str, str], str] = {}
    unrecognized = []
    for name in layout.tensors:
        split = split_tensor_name(name)
        if split is None:
            unrecognized.append(name)
        elif split.format is None and split.role in SHARED_ROLES:
            shared[split.module, split.role] = name
        elif split.format is Format.FULL and len(layout.tensors[name].shape) < 2:
            grouped.skip("norm", split.module)
        elif split.format is None or split.role in ("bias", "embedding"):
            grouped.skip(split.role, split.module)
        else:
            key = (split.module, split.adapter, split.format)
            modules.setdefault(key, Module(*key)).parts[split.role] = name
    used = set()
    for module in modules.values():
        for role in SHARED_ROLES:
            if (module.name, role) in shared:
                module.parts.setdefault(role, shared[module.name, role])
                used.add((module.name, role))
    ia3_modules = grouped.skipped.get(MULTIPLIER, set())
    grouped.unrecognized += [name for name in unrecognized if name.removesuffix(".weight") not in ia3_modules]
    unread = set[str]().union(*grouped.skipped.values())  # their alphas and magnitudes belong to what is not read
    grouped.unrecognized += [name for key, name in shared.items() if key not in used and key[0] not in unread]
    readable = readable_modules(layout, grouped, modules.values(), Quantisation(unrecognized))
    grouped.modules = sorted(readable, key=lambda module: module.sort_key)
    if QUANTISED in grouped.skipped:
        grouped.unrecognized = [name for name in grouped.unrecognized if not is_quantiser_name(name)]
    return grouped


def readable_modules(
    layout: Layout, grouped: GroupedTensors, modules: Iterable[Module], quantisation: Quantisation
) -> Iterator[Module]:
    """The modules of readable dtypes without a quantiser's scales; others are recorded as skipped."""
    for module in modules:
        if any(layout.tensors[name].dtype in UNREADABLE_DTYPES for name in module.parts.values()):
            grouped.skip(ODD_NUMBERS, module.name)
        elif quantisation.concerns(layout, module.name, module.parts):
            grouped.skip(QUANTISED, module.name)
        else:
            yield module
