"""All base models at hand, each with its state."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loradex.app.bases.bases import BASES_VARIABLE, Bases, open_named
from loradex.app.bases.entry import READY, UNREADABLE, Entry
from loradex.app.bases.errors import NoBase
from loradex.app.bases.shipped import SHIPPED, shipped_base
from loradex.app.reporting import ProgressCallback

# where a base model is named
ADDED: Final = "added"
ENVIRONMENT: Final = BASES_VARIABLE
SHIPS: Final = "ships"


@dataclass(frozen=True, slots=True)
class ListedBase:
    """A base model at hand.

    Attributes:
        entry: what it is, or was when it was added.
        source: where it is named: ``added``, ``LORADEX_BASES`` or ``ships``.
        used: whether it is the one of its family that commands use.
        state: ``ready``, ``moved or deleted``, ``changed`` or ``unreadable``.
        reason: one line that says how to mend its state; None if it is ready.
    """

    entry: Entry
    source: str
    used: bool
    state: str
    reason: str | None

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex base list --json``."""
        return self.entry.document() | {key: value for key, value in asdict(self).items() if key != "entry"}


def list_all(progress: ProgressCallback = lambda done, total, path: None) -> list[ListedBase]:
    """List the base models at hand: the miniature's, those that were added, and those of ``$LORADEX_BASES``.

    Args:
        progress: called with the number of base models that were looked at.

    Raises:
        QueryError: ``$LORADEX_BASES`` cannot be parsed.
        RegistryError: the list is damaged.
    """
    bases = Bases.load()
    defaults = bases.defaults
    listed = [
        ListedBase(
            Entry.of(shipped_base(family)), SHIPS, family not in bases.named and family not in defaults, READY, None
        )
        for family in SHIPPED
    ]
    total = len(bases.entries) + len(bases.named)
    for done, entry in enumerate(bases.entries):
        progress(done, total, entry.path)
        state, reason, _ = entry.check()
        used = entry is defaults[entry.family] and entry.family not in bases.named
        listed.append(ListedBase(entry, ADDED, used, state, reason or None))
    for done, (family, path) in enumerate(bases.named.items(), len(bases.entries)):
        progress(done, total, str(path))
        listed.append(named_base(family, path))
    return listed


def named_base(family: str, path: Path) -> ListedBase:
    """A base model of ``$LORADEX_BASES``."""
    try:
        return ListedBase(Entry.of(open_named(family, path)), ENVIRONMENT, True, READY, None)
    except NoBase as error:
        kind = "file" if path.is_file() else "folder"
        entry = Entry(str(path), family, kind, (), 0, "", time.time())
        return ListedBase(entry, ENVIRONMENT, True, UNREADABLE, str(error))
