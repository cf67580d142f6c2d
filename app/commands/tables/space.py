"""Tables of ``loradex space``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from loradex.app.commands.tables.adaptive import AdaptiveTable, with_blank_lines
from loradex.app.commands.tables.columns import Column, Kind
from loradex.app.commands.tables.library import index_table
from loradex.app.reporting import pluralize

if TYPE_CHECKING:
    from loradex.app.space.choice import UseAnswer
    from loradex.app.space.reindex import ReindexAnswer
    from loradex.app.space.status import SpaceStatus

FACTS = Column("fact"), Column("value", Kind.PROSE)


def use_table(answer: UseAnswer) -> AdaptiveTable:
    """The space that is in use now, and what became of the one before."""
    rows = [
        ("space", answer.space or "the miniature's"),
        ("text encoder", answer.text_encoder),
        ("folder", answer.folder if answer.space else None),
        ("downloaded", f"{answer.downloaded / 1e6:,.0f} MB" if answer.downloaded else None),
        ("before", None if answer.changed else "the same"),
        ("set aside", answer.set_aside),
        ("restored", "with the experts that it had" if answer.restored else None),
    ]
    notes = ["A zoo of another space is made again by `loradex space reindex`."] if answer.changed else []
    return AdaptiveTable("Space in use", FACTS, [(key, value) for key, value in rows if value], notes)


def status_table(status: SpaceStatus) -> AdaptiveTable:
    """The space in use, and the zoo."""
    zoo = status.zoo
    rows = [
        ("text encoder", status.text_encoder),
        ("numbers a vector", f"{status.dim:,}"),
        ("prompts", list(status.templates)),
        ("default labels", f"{status.labels:,}"),
        ("experts", status.experts or "none; `loradex expert add PLACE` adds one, `loradex grow FAMILY` grows one"),
        ("experts for classifiers", status.categories or "none"),
        ("zoo", f"{zoo.zoo}: {pluralize(zoo.models, 'model')}" if zoo else "none yet; `loradex index` makes one"),
        *(
            [("zoo's space", "this one" if zoo.fits else f"{zoo.space}; `loradex space reindex` makes it again")]
            if zoo
            else []
        ),
        *[("file", f"{path} ({size / 1e6:,.1f} MB)") for path, size in status.files.items()],
    ]
    return AdaptiveTable(status.space, FACTS, rows)


def reindex_tables(answer: ReindexAnswer) -> Group | AdaptiveTable:
    """What became of a zoo, and how its files were read."""
    rows = [
        ("space", answer.space),
        ("before", "the same; nothing was done" if answer.indexed is None else answer.old_space),
        ("models", f"{answer.models:,}"),
        ("old zoo", answer.old_zoo),
        ("files that are gone", str(len(answer.missing) or "")),
        ("models left out", str(len(answer.lost) or "")),
    ]
    table = AdaptiveTable(answer.zoo, FACTS, [(key, value) for key, value in rows if value])
    return with_blank_lines([table, index_table(answer.indexed)]) if answer.indexed else table
