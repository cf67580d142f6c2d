"""Table of ``loradex index``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loradex.app.commands.tables.adaptive import AdaptiveTable
from loradex.app.commands.tables.columns import Column, Kind
from loradex.app.commands.tables.text import listed
from loradex.index.model import FoundBy

if TYPE_CHECKING:
    from loradex.app.indexing.answer import IndexAnswer


def index_table(answer: IndexAnswer) -> AdaptiveTable:
    """How many files were read, and what they are to the zoo; then which are known by metadata only, and why."""
    missing = "missing since last time" + (f", {answer.removed} models removed" if answer.removed else "")
    rows = [
        ("read by weights", answer.by_weights),
        ("known by metadata only", answer.by_metadata),
        ("unchanged", answer.unchanged),
        ("refused", len(answer.refused)),
        ("new models", answer.added),
        ("read again", answer.updated),
        ("moved or renamed", answer.moved),
        ("copies of models in the zoo", answer.copies),
        (missing, len(answer.missing)),
    ]
    by_metadata = listed([Path(file).name for file in answer.understood[FoundBy.METADATA]])
    notes = [f"By metadata only: {', '.join(by_metadata)}.", answer.advice] if answer.advice else []
    columns = Column("files"), Column("count", Kind.NUMBER)
    return AdaptiveTable(answer.zoo, columns, [row for row in rows if row[1] or row is rows[0]], notes)
