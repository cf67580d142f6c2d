"""Tables of ``loradex draw``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loradex.app.commands.tables.adaptive import AdaptiveTable
from loradex.app.commands.tables.columns import Column, Kind


def drawings_table(results: Sequence[dict[str, Any]]) -> AdaptiveTable:
    """The drawing of each file: without the LoRA on the left, with it on the right."""
    columns = (
        Column("file", Kind.FILE),
        Column("family", drop=1),
        Column("seconds", Kind.NUMBER, drop=3),
        Column("without | with", Kind.PROSE),
    )
    rows = [(result["file"], result["family"], f"{result['took_s']:.1f}", result["picture"]) for result in results]
    return AdaptiveTable("Drawings", columns, rows)
