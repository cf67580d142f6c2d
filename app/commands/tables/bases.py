"""Tables of ``loradex base``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from loradex.app.commands.tables.adaptive import AdaptiveTable
from loradex.app.commands.tables.columns import Column, Kind

if TYPE_CHECKING:
    from loradex.app.bases.entry import Entry
    from loradex.app.bases.listing import ListedBase
    from loradex.app.bases.search import Found

BASE_COLUMNS = (
    Column("family"),
    Column("path", Kind.FILE),
    Column("kind", drop=3),
    Column("parts", Kind.PROSE, drop=2),
    Column("MB", Kind.NUMBER, drop=1),
)
STATE_COLUMNS = (Column("state"), Column("used", drop=4))
MAX_NOTES = 10  # of a kind
USED_NOTE = "Of several of a family, the last is used; `loradex base add` makes another the last."


def bases_table(bases: Sequence[ListedBase]) -> AdaptiveTable:
    """The base models at hand, with their states; the reasons for states stand below."""
    rows = [(*base_cells(base.entry), base.state, base.source if base.used else "no") for base in bases]
    reasons = [base.reason for base in bases if base.reason]
    counts: dict[str, int] = {}
    for base in bases:
        counts[base.entry.family] = counts.get(base.entry.family, 0) + 1
    notes = [*reasons, *([USED_NOTE] if max(counts.values(), default=0) > 1 else [])]
    return AdaptiveTable(f"{len(bases)} base models", (*BASE_COLUMNS, *STATE_COLUMNS), rows, notes)


def added_table(added: Sequence[Entry]) -> AdaptiveTable:
    """The base models that were added."""
    return entries_table(f"{counted(len(added))} added", added)


def removed_table(removed: Sequence[Entry]) -> AdaptiveTable:
    """The base models that were removed from the list."""
    return entries_table(f"{counted(len(removed))} removed from the list; the files stay", removed)


def found_table(found: Found, added: Sequence[Entry]) -> AdaptiveTable:
    """The base models that were found and are new, and what else was there."""
    known = len(found.bases) - len(added)
    notes = [f"{counted(known)} known already."] if known else []
    notes += shortened([f"{path}: a copy of {first}." for path, first in found.copies.items()])
    notes += shortened([f"Not added: {reason}" for reason in found.skipped.values()])
    if not found.complete:
        notes.append("There are too many folders to look into all; name one: `loradex base add --find FOLDER`.")
    return entries_table(f"{counted(len(added))} found and added", added, notes)


def shortened(notes: Sequence[str]) -> list[str]:
    """The first of many notes, and how many more there are."""
    more = [f"{len(notes) - MAX_NOTES} more like that; --json lists all."] if len(notes) > MAX_NOTES else []
    return [*notes[:MAX_NOTES], *more]


def entries_table(title: str, entries: Iterable[Entry], notes: Iterable[str] = ()) -> AdaptiveTable:
    """Base models of the list."""
    return AdaptiveTable(title, BASE_COLUMNS, [base_cells(entry) for entry in entries], notes)


def base_cells(entry: Entry) -> tuple[object, ...]:
    """The cells of one base model."""
    return entry.family, entry.path, entry.kind, list(entry.parts), f"{entry.size / 1e6:,.0f}" if entry.size else ""


def counted(count: int) -> str:
    """How many base models, in words."""
    return f"{count} base model{'' if count == 1 else 's'}"
