"""Base models by family: of ``--base`` and ``$LORADEX_BASES``, then those that were added, then the miniature's."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loradex.app.bases.entry import Entry
from loradex.app.bases.errors import NoBase
from loradex.app.bases.registry import read_registry
from loradex.app.bases.shipped import SHIPPED, shipped_base
from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import FileError, QueryError
from loradex.retrieval.lora.family import UNKNOWN

BASES_VARIABLE: Final = "LORADEX_BASES"  # environment variable: FAMILY=PATH pairs, separated by os.pathsep


@dataclass(frozen=True, slots=True)
class Bases:
    """The base models at hand; only the list of them is read, and each is opened when it is asked for.

    Attributes:
        named: paths by family, of ``$LORADEX_BASES`` and ``--base``; they go before those that were added.
        entries: those that were added, the latest last; the latest of a family is its default.
    """

    named: dict[str, Path]
    entries: tuple[Entry, ...]

    @classmethod
    def load(cls, pairs: Sequence[str] = ()) -> "Bases":
        """Read the list, with FAMILY=PATH pairs of ``$LORADEX_BASES`` and then ``pairs``, which override them.

        Raises:
            QueryError: a pair cannot be parsed.
            RegistryError: the list is damaged.
        """
        return cls(named_bases(pairs), tuple(read_registry()))

    @property
    def defaults(self) -> dict[str, Entry]:
        """Of each family that has one, the base model that was added last."""
        return {entry.family: entry for entry in self.entries}

    @property
    def families(self) -> list[str]:
        """The families that have a base model."""
        return list(dict.fromkeys((*SHIPPED, *self.defaults, *self.named)))

    def for_family(self, family: str) -> BaseModel | None:
        """Open the base model of a family; None if none has been named.

        Raises:
            NoBase: the one that was named has moved or changed, cannot be read, or is of another family.
        """
        if family in self.named:
            return open_named(family, self.named[family])
        if family in self.defaults:
            return self.defaults[family].open()
        return shipped_base(family) if family in SHIPPED else None

    def get(self, family: str) -> BaseModel:
        """Open the base model of a family.

        Raises:
            NoBase: as ``for_family``, or none has been named.
        """
        base = self.for_family(family)
        if base is None:
            raise no_base(family, self.families)
        return base


def named_bases(pairs: Sequence[str] = ()) -> dict[str, Path]:
    """The base models of FAMILY=PATH pairs: those of ``$LORADEX_BASES``, then ``pairs``, which override them.

    Raises:
        QueryError: a pair cannot be parsed.
    """
    configured = [pair for pair in os.environ.get(BASES_VARIABLE, "").split(os.pathsep) if pair.strip()]
    return dict(map(parse_pair, (*configured, *pairs)))


def parse_pair(pair: str) -> tuple[str, Path]:
    """Parse FAMILY=PATH.

    Raises:
        QueryError: it has another form.
    """
    family, _, folder = (part.strip() for part in pair.partition("="))
    if not family or not folder:
        raise QueryError(
            f"base model: expected FAMILY=PATH, such as sdxl=models/sdxl, found {pair[:80]!r}; write it so"
        )
    return family, Path(folder).expanduser()


def open_named(family: str, path: Path) -> BaseModel:
    """Open a base model that ``--base`` or ``$LORADEX_BASES`` names.

    Raises:
        NoBase: it cannot be read, or is of another family.
    """
    try:
        base = BaseModel.open(path)
    except FileError as error:
        raise NoBase(f"base model of {family}: {error}") from None
    if base.family != family:
        raise NoBase(
            f"base model of {family}: expected that family in {path}, found {base.family}; name another with --base {family}=PATH"
        )
    return base


def no_base(family: str, available: Iterable[str]) -> NoBase:
    """The error for a family without a base model."""
    if family == UNKNOWN:
        return NoBase("base model: expected a known family, found unknown; no base model can be chosen for this file")
    how = (
        "name one with `loradex base add PATH`, look for it with `loradex base add --find`, "
        f"or give --base {family}=PATH or in ${BASES_VARIABLE}"
    )
    return NoBase(f"base model: expected one of family {family}, found those of {', '.join(available)}; {how}")
