"""Table of ``loradex index``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from loradex.app.commands.tables.adaptive import AdaptiveTable
from loradex.app.commands.tables.columns import Column, Kind
from loradex.app.commands.tables.text import listed
from loradex.index.evidence import Evidence

if TYPE_CHECKING:
    from loradex.app.indexing.answer import IndexAnswer


def index_table(answer: IndexAnswer) -> AdaptiveTable:
    """How many files were read, and what they are to the zoo; then those that no expert read, and bad pictures."""
    missing = "missing since last time" + (f", {answer.removed} models removed" if answer.removed else "")
    rows = [
        ("read by weights", answer.by_weights),
        ("placed by words in their weights", answer.by_words),
        ("placed by their previews", answer.by_preview),
        ("known by metadata only", answer.by_metadata),
        ("unchanged", answer.unchanged),
        ("refused", len(answer.refused)),
        ("new models", answer.added),
        ("read again", answer.updated),
        ("moved or renamed", answer.moved),
        ("copies of models in the zoo", answer.copies),
        (missing, len(answer.missing)),
        ("bad pictures", len(answer.bad_pictures)),
    ]
    columns = Column("files"), Column("count", Kind.NUMBER)
    return AdaptiveTable(answer.zoo, columns, [row for row in rows if row[1] or row is rows[0]], list(notes(answer)))


def notes(answer: IndexAnswer) -> Iterator[str]:
    """What to know about files that no expert read, and about pictures."""
    if answer.advice:
        if by_preview := names(file for file in answer.no_expert if Evidence.PREVIEW in answer.evidence[file]):
            yield f"By their previews, and by names: {by_preview}."
        if by_metadata := names(file for file in answer.no_expert if not answer.evidence[file]):
            yield f"By metadata only: {by_metadata}."
        yield answer.advice
    if answer.words_advice:
        yield answer.words_advice
    if answer.missing and not answer.removed:
        yield f"Missing: {names(answer.missing)}. `loradex index FOLDER --prune` forgets them."
    if answer.no_previews:
        yield f"The pictures beside LoRAs were not placed: {answer.no_previews}."
    if answer.bad_pictures:
        yield f"Left out: {'; '.join(listed(list(answer.bad_pictures.values())))}."


def names(files: Iterable[str]) -> str:
    """The names of the first files."""
    return ", ".join(listed([Path(file).name for file in files]))
