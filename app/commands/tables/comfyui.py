"""The table of ``loradex comfyui``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loradex.app.commands.tables.adaptive import AdaptiveTable
from loradex.app.commands.tables.columns import Column, Kind

if TYPE_CHECKING:
    from loradex.app.comfyui import InstalledPack


def installed_table(installed: InstalledPack) -> AdaptiveTable:
    """Where the node pack is, and what to do next."""
    done = "updated" if installed.updated else "installed"
    kind = "a link to this installation" if installed.linked else "a copy; the same command updates it"
    rows = [(str(number), step) for number, step in enumerate(installed.next, 1)]
    columns = (Column("", Kind.NUMBER), Column("next"))
    return AdaptiveTable(f"{installed.folder}: {done}, {kind}", columns, rows)
