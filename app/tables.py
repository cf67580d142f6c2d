"""Answers as tables for a terminal; everything from a file is shown as plain text, never as markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from app.answers import IndexAnswer, LabelAnswer, SearchAnswer
    from app.ingest import Progress as Report

BAR = 20


def stderr() -> Console:
    """Where progress goes."""
    return Console(stderr=True)


def working(what: str) -> Status:
    """A spinner on stderr, in a terminal only, for what takes seconds."""
    return stderr().status(what)


def table_of(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str) -> Table:
    """A table of plain texts; control characters are shown as question marks."""
    table = Table(*columns, title=Text(title), title_justify="left")
    for row in rows:
        table.add_row(*(Text("".join(c if c.isprintable() else "?" for c in str(cell))) for cell in row))
    return table


def hits_table(answer: SearchAnswer) -> Table:
    """The hits of a search."""
    rows = [(f"{hit.score:.3f}", hit.model.name, hit.model.concept or "", hit.model.family, hit.model.found_by, hit.model.id) for hit in answer.hits]
    return table_of(("score", "name", "concept", "family", "found by", "id"), rows, f"{answer.query}: {len(rows)} models in {answer.took_ms:.0f} ms")


def labels_table(answers: Sequence[LabelAnswer]) -> Table:
    """The labels of the files that could be read."""
    rows = []
    for answer in (answer for answer in answers if not answer.refused):
        found = ", ".join(f"{label.label} {label.probability:.0%}" for label in answer.labels)
        rows.append((answer.file, answer.family, f"unknown: {answer.reason}" if answer.abstained else found))
    return table_of(("file", "family", "labels"), rows, f"{len(rows)} of {len(answers)} files")


def index_table(answer: IndexAnswer) -> Table:
    """What became of the files of some folders."""
    rows = [
        ("understood by weights", answer.by_weights),
        ("known by metadata only (no expert for their family)", answer.by_metadata),
        ("unchanged", answer.unchanged),
        ("refused", len(answer.refused)),
    ]
    return table_of(("files", "count"), rows, answer.zoo)


def metrics_table(document: dict[str, Any]) -> Table:
    """Metrics with their intervals, beside the baselines."""
    baselines = document["baselines"]
    rows = []
    for name, metric in document["metrics"].items():
        others = [percent(metrics[name]) if name in metrics else "" for metrics in baselines.values()]
        rows.append((name, percent(metric), *others, f"{metric['chance']:.1%}", metric["n"]))
    return table_of(("metric", "Loradex", *baselines, "chance", "n"), rows, f"{document['zoo']}: % with 95 % intervals over concepts")


def percent(metric: dict[str, float]) -> str:
    """A fraction and its interval in per cent."""
    return f"{100 * metric['value']:.1f} [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]"


@contextmanager
def progress_bar() -> Iterator[Report]:
    """A function that draws progress over files on stderr, in a terminal only."""
    columns = (TextColumn("Reading"), BarColumn(BAR), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total, file: progress.update(task, completed=done, total=total, description=file[-40:])
