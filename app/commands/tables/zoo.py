"""Tables of ``loradex zoo``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group

from loradex.app.commands.tables.adaptive import AdaptiveTable, with_blank_lines
from loradex.app.commands.tables.columns import Column, Kind
from loradex.app.commands.tables.text import date, fact, listed
from loradex.app.models import evidence_words, known_by, model_path

if TYPE_CHECKING:
    from loradex.index import Model

MAX_ITEMS = 4  # of a list in a row that describes a model
LEFT_OUT = ("facts", "files", "added", "name", "found_by", "evidence")  # of the document: shown in another form
MODEL_COLUMNS = (
    Column("name", Kind.NAME),
    Column("path", Kind.PATH),
    Column("family", drop=1),
    Column("format", drop=3),
    Column("rank", drop=2),
    Column("tags", Kind.PROSE, drop=2),
    Column("known by", drop=4),
    Column("added", drop=5),
    Column("id", Kind.ID),
)


def models_table(zoo: str, space: str, models: Sequence[Model], ids: bool = False) -> AdaptiveTable:
    """The models of a zoo."""
    rows = [
        (
            model.name,
            model_path(model, zoo),
            model.family,
            model.facts.get("format"),
            ", ".join(listed(model.facts.get("ranks"), MAX_ITEMS)),
            listed(model.facts.get("tags"), MAX_ITEMS),
            known_by(model),
            date(model.added),
            model.id,
        )
        for model in models
    ]
    return AdaptiveTable(f"{zoo} ({space}): {len(rows)} models", MODEL_COLUMNS, rows, ids=ids)


def facts_tables(models: Sequence[dict[str, Any]]) -> Group:
    """All facts of some models, a table for each."""
    return with_blank_lines(map(facts_table, models))


def facts_table(model: dict[str, Any]) -> AdaptiveTable:
    """All facts of one model, then its labels and files."""
    entry = {key: value for key, value in model.items() if key not in LEFT_OUT}
    facts = {key: value for key, value in entry.items() if value is not None} | {"added": date(model["added"])}
    facts["known by"] = evidence_words(model["evidence"] or [model["found_by"]])
    facts |= {key: value for key, value in model["facts"].items() if key != "labels"}
    facts["labels"] = [f"{label} {probability:.0%}" for label, probability in model["facts"].get("labels", [])]
    for number, file in enumerate(model["files"], 1):
        facts["file" if number == 1 else f"file {number}"] = file["path"]
    columns = Column("fact"), Column("value", Kind.PROSE)
    return AdaptiveTable(model["name"], columns, [(key, fact(value)) for key, value in facts.items()])


def problems_table(zoo: str, models: int, problems: Sequence[str]) -> AdaptiveTable:
    """What is damaged in a zoo."""
    state = (
        f"{len(problems)} problems; `loradex zoo rebuild` repairs what can be computed again" if problems else "sound"
    )
    columns = (Column("problem", Kind.PROSE),)
    return AdaptiveTable(f"{zoo}: {models} models, {state}", columns, [(problem,) for problem in problems])


def removed_table(zoo: str, models: int, ids: Sequence[str]) -> AdaptiveTable:
    """The damaged models that were removed from a zoo."""
    return AdaptiveTable(f"{zoo}: {models} models", [Column("removed, as it was damaged")], [(id,) for id in ids])


def counts_table(title: str, counts: dict[str, int], headings: tuple[str, str]) -> AdaptiveTable:
    """Numbers with their names."""
    columns = Column(headings[0], Kind.PROSE), Column(headings[1], Kind.NUMBER)
    return AdaptiveTable(title, columns, [(name, f"{count:,}") for name, count in counts.items()])
