"""Tables of ``loradex search``, ``similar`` and ``duplicates``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loradex.app.commands.tables.adaptive import AdaptiveTable
from loradex.app.commands.tables.columns import Column, Kind
from loradex.app.commands.tables.text import split_path
from loradex.app.models import evidence_words
from loradex.app.reporting import pluralize

if TYPE_CHECKING:
    from loradex.app.search.answers import SearchAnswer
    from loradex.app.search.lookalikes import DuplicatesAnswer, LookalikeHit, MergeAnswer, SimilarAnswer, WeightedLora

MAX_PAIRS = 50
NOTHING_FOUND = (
    "Nothing is left to show: this page lies after the last one, or the filters leave no model. "
    "`loradex zoo list` shows what the zoo holds, and where its files lie."
)
HIT_COLUMNS = (
    Column("", Kind.NUMBER),
    Column("score", Kind.NUMBER),
    Column("likely", Kind.NUMBER),
    Column("name", Kind.NAME),
    Column("path", Kind.PATH),
    Column("copies", Kind.NUMBER, drop=2),
    Column("concept", drop=3),
    Column("family", drop=1),
    Column("found by", drop=4),
    Column("id", Kind.ID),
)
LOOKALIKE_COLUMNS = (
    Column("LoRA", Kind.NAME),
    Column("path", Kind.PATH),
    Column("relation", Kind.PROSE),
    Column("cosine", Kind.NUMBER),
    Column("strength", Kind.NUMBER),
)


def hits_table(answer: SearchAnswer, ids: bool = False) -> AdaptiveTable:
    """The hits of a search."""
    rows = [
        (
            rank,
            None if hit.score is None else f"{hit.score:.2f}",
            None if hit.probability is None else f"{hit.probability:.0%}",
            hit.name,
            hit.place and hit.place.path,
            len(hit.copies) or None,
            hit.model.concept,
            hit.model.family,
            evidence_words(hit.matched),
            hit.model.id,
        )
        for rank, hit in enumerate(answer.hits, answer.offset + 1)
    ]
    title = f"{answer.query}: {pluralize(len(rows), 'model')} in {answer.took_ms:.0f} ms"
    return AdaptiveTable(title, HIT_COLUMNS, rows, [] if rows else [NOTHING_FOUND], ids=ids)


def similar_table(answer: SimilarAnswer) -> AdaptiveTable:
    """The look-alikes of one file, and the LoRAs that it was merged from."""
    no_hits = "" if answer.hits else ": none is like it"
    title = f"{answer.file} ({answer.family}), compared with {pluralize(answer.compared, 'LoRA')}{no_hits}"
    notes = [merge_note(answer.merge)] if answer.merge else []
    return AdaptiveTable(title, LOOKALIKE_COLUMNS, map(lookalike_row, answer.hits), notes)


def duplicates_table(answer: DuplicatesAnswer) -> AdaptiveTable:
    """Groups of LoRAs with one update, then related pairs, then merges."""
    groups, pairs, notes = answer.groups, answer.related, list(map(merge_note, answer.merges))
    rows = [(f"group {number}", *lookalike_row(like)) for number, group in enumerate(groups, 1) for like in group]
    for number, (first, other) in enumerate(pairs[:MAX_PAIRS], 1):
        rows += [
            (f"related pair {number}", *name_and_path(first), "", "", ""),
            (f"related pair {number}", *lookalike_row(other)),
        ]
    if len(pairs) > MAX_PAIRS:
        notes.insert(0, f"{len(pairs) - MAX_PAIRS} more related pairs are in the document that --json prints.")
    counts = ", ".join(
        [
            pluralize(len(groups), "group") + " with one update",
            pluralize(len(pairs), "related pair"),
            pluralize(len(answer.merges), "merge"),
        ]
    )
    columns = (Column("group", Kind.SECTION), *LOOKALIKE_COLUMNS)
    return AdaptiveTable(f"{pluralize(answer.compared, 'LoRA')}: {counts}", columns, rows, notes)


def lookalike_row(like: LookalikeHit) -> tuple[object, ...]:
    """The cells of one look-alike."""
    return *name_and_path(like), like.relation, f"{like.cosine:.3f}", f"{like.strength:.2f}"


def name_and_path(lora: LookalikeHit | WeightedLora) -> tuple[str, str | None]:
    """The name and the path of a LoRA's file; the name of the LoRA if no file of it is known."""
    return split_path(lora.path)[1] if lora.path else lora.name, lora.path


def merge_note(merge: MergeAnswer) -> str:
    """A merge as a sum."""
    parts = " + ".join(f"{part.weight:.2f} x {part.name}" for part in merge.parts)
    return f"{merge.name} = {parts} ({merge.explained:.0%} of it)"
