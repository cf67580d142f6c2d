"""Tables of ``loradex label``, ``inspect``, ``describe`` and ``categories``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loradex.app.commands.tables.adaptive import AdaptiveTable
from loradex.app.commands.tables.columns import Column, Kind
from loradex.app.commands.tables.text import fact, listed, split_path
from loradex.retrieval.lora.facts import WRITTEN_KEY

if TYPE_CHECKING:
    from loradex.app.describe.descriptions import DescribeAnswer
    from loradex.app.describe.inspection import InspectAnswer
    from loradex.app.experts.category_prediction import CategoriesAnswer
    from loradex.app.search.answers import LabelAnswer

MAX_ITEMS = 4  # of a list in a row that describes a file
FILE = Column("file", Kind.FILE)
FACT_COLUMNS = Column("fact"), Column("value", Kind.PROSE)


def labels_table(answers: Sequence[LabelAnswer]) -> AdaptiveTable:
    """The labels of the files that could be read."""
    rows = [
        (
            answer.file,
            answer.family,
            f"unknown: {answer.reason}"
            if answer.abstained
            else [f"{label.label} {label.probability:.0%}" for label in answer.labels],
        )
        for answer in answers
        if not answer.refused
    ]
    columns = FILE, Column("family", drop=1), Column("labels", Kind.PROSE)
    return AdaptiveTable(f"{len(rows)} of {len(answers)} files", columns, rows)


def inspect_table(answer: InspectAnswer) -> AdaptiveTable:
    """All facts of one file, or a row for each of several files."""
    if len(answer.files) == 1:
        (file,) = answer.files
        facts = [
            (key, "; ".join(map(str, value)) if key == "problems" else fact(value))
            for key, value in file.items()
            if key != "file" and value not in (None, [])
        ]
        return AdaptiveTable(str(file["file"]), FACT_COLUMNS, facts)
    rows = [
        (
            file["file"],
            file["family"],
            file["format"],
            ", ".join(listed(file["ranks"], MAX_ITEMS)),
            ", ".join(listed(file["scales"], MAX_ITEMS)),
            listed(file["trigger_words"], MAX_ITEMS),
        )
        for file in answer.files
    ]
    columns = (
        FILE,
        Column("family", drop=1),
        Column("format", drop=2),
        Column("rank", drop=2),
        Column("scale", drop=3),
        Column("trigger words", Kind.PROSE, drop=2),
    )
    notes = [f"{split_path(file['file'])[1]}: {problem}" for file in answer.files for problem in file["problems"]]
    return AdaptiveTable(f"{len(rows)} files", columns, rows, notes)


def describe_table(answer: DescribeAnswer) -> AdaptiveTable:
    """The changed fields of each side-car or card, with their old and new values."""
    rows = [
        (file.target, change.field, field_value(change.old), field_value(change.new))
        for file in answer.files
        for change in file.changes
    ]
    changed = len({file.target for file in answer.files if file.changes})
    written = "nothing was written" if answer.dry_run else "written"
    title = (
        f"{changed} of {len(answer.files)} {answer.form}s change ({written})"
        if rows
        else f"nothing to change in {len(answer.files)} {answer.form}s"
    )
    columns = Column("in", Kind.SECTION), Column("field"), Column("old", Kind.PROSE), Column("new", Kind.PROSE)
    return AdaptiveTable(title, columns, rows)


def field_value(value: object) -> str:
    """A value of a field of a side-car or card."""
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if key != WRITTEN_KEY}  # repeats the other rows
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def categories_table(answers: Sequence[CategoriesAnswer], sure: float) -> AdaptiveTable:
    """The predicted categories of classifiers; those without a number have a probability of at least ``sure``."""
    rows = [(answer.file, answer.tree, answer.line.split(", ")) for answer in answers if not answer.reason]
    columns = FILE, Column("tree", drop=1), Column("trained on", Kind.PROSE)
    notes = [f"Categories without a number have a probability of {sure:.0%} or more."] if rows else []
    return AdaptiveTable(f"{len(rows)} of {len(answers)} files", columns, rows, notes)
