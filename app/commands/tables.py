"""Answers as tables for a terminal; everything from a file is shown as plain text, never as markup."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from loradex.index.model import FoundBy
from loradex.retrieval.lora.facts import WROTE

if TYPE_CHECKING:
    from loradex.app.describe.descriptions import DescribeAnswer
    from loradex.app.describe.inspection import InspectAnswer
    from loradex.app.experts.training import TrainAnswer
    from loradex.app.indexing.answer import IndexAnswer
    from loradex.app.reporting import Progress as Report
    from loradex.app.search.answers import LabelAnswer, SearchAnswer
    from loradex.app.search.lookalikes import DuplicatesAnswer, Like, MergeAnswer, SimilarAnswer
    from loradex.index import Model

BAR = 20
NARROW = 78  # columns that every terminal has
WIDE = 32  # characters of a file's name or path
MOST_SHOWN, MOST_LISTED = 4, 30  # of a list in a cell
MOST_PAIRS = 50
SEEDED = {
    "zero_shot_top1_heldout": "top 1 of held-out",
    "zero_shot_top1_all": "top 1 of all",
    "text_to_model_map": "mAP",
    "in_distribution_top1": "in-distribution",
    "nearest_model_top1": "nearest model",
}
HEADINGS = ("top 1 of all concepts", "cosine with the original")
LIKE = ("LoRA", "relation", "cosine", "strength")


def stderr() -> Console:
    """Where progress goes."""
    return Console(stderr=True)


def working(what: str) -> Status:
    """A spinner on stderr, in a terminal only, for what takes seconds."""
    return stderr().status(what)


def table_of(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str) -> Table:
    """A table of plain texts; control characters are shown as question marks."""
    heading = Text(plain(title))
    table = Table(title=heading, title_justify="left", caption_justify="left", min_width=min(len(heading), NARROW))
    for column in columns:
        table.add_column(column, overflow="fold", min_width=WIDE if column in ("file", "LoRA") else None)
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    return table


def plain(value: object) -> str:
    """A text on one line, without control characters."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in str(value))


def hits_table(answer: SearchAnswer) -> Table:
    """The hits of a search."""
    rows = []
    for rank, hit in enumerate(answer.hits, answer.offset + 1):
        likely = "" if hit.probability is None else f"{hit.probability:.0%}"
        copies = f" (and {len(hit.copies)} copies)" if hit.copies else ""
        rows.append(
            (
                rank,
                f"{hit.score:.3f}",
                likely,
                hit.model.name + copies,
                hit.model.concept or "",
                hit.model.family,
                " and ".join(hit.matched),
                hit.model.id,
            )
        )
    columns = ("", "score", "likely", "name", "concept", "family", "found by", "id")
    return table_of(columns, rows, f"{answer.query}: {len(rows)} models in {answer.took_ms:.0f} ms")


def models_table(zoo: str, space: str, models: Sequence[Model]) -> Table:
    """The models of a zoo."""
    rows = []
    for model in models:
        ranks, tags = (listed(model.facts.get(name) or [], MOST_SHOWN) for name in ("ranks", "tags"))
        rows.append(
            (
                model.name,
                model.family,
                model.facts.get("format", ""),
                ranks,
                tags,
                model.found_by,
                day_of(model.added),
                model.id,
            )
        )
    return table_of(
        ("name", "family", "format", "rank", "tags", "known by", "added", "id"),
        rows,
        f"{zoo} ({space}): {len(rows)} models",
    )


def model_tables(models: Sequence[dict[str, Any]]) -> Group:
    """All that is known of some models."""
    tables = []
    for model in models:
        facts = {
            key: value
            for key, value in model.items()
            if key not in ("facts", "files", "added", "name") and value is not None
        }
        facts |= {"added": day_of(model["added"])} | {
            key: listed(value) for key, value in model["facts"].items() if key != "labels"
        }
        facts |= {"labels": ", ".join(f"{label} {likely:.0%}" for label, likely in model["facts"].get("labels", []))}
        facts |= {
            "file" if number == 0 else f"file {number + 1}": file["path"] for number, file in enumerate(model["files"])
        }
        tables.append(table_of(("fact", "found"), list(facts.items()), model["name"]))
    return Group(*tables)


def day_of(seconds: int | None) -> str:
    """A day of the calendar, UTC."""
    try:
        return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return ""


def labels_table(answers: Sequence[LabelAnswer]) -> Table:
    """The labels of the files that could be read."""
    rows = []
    for answer in (answer for answer in answers if not answer.refused):
        found = ", ".join(f"{label.label} {label.probability:.0%}" for label in answer.labels)
        rows.append((answer.file, answer.family, f"unknown: {answer.reason}" if answer.abstained else found))
    return table_of(("file", "family", "labels"), rows, f"{len(rows)} of {len(answers)} files")


def index_table(answer: IndexAnswer) -> Table:
    """What became of some files."""
    rows = [
        ("understood by weights", answer.by_weights),
        ("known by metadata only", answer.by_metadata),
        ("unchanged", answer.unchanged),
        ("refused", len(answer.refused)),
        ("", ""),
        ("new models", answer.added),
        ("read again", answer.updated),
        ("moved or renamed", answer.moved),
        ("copies of models that are there", answer.copies),
        (
            "missing since last time" + (f", {answer.removed} models taken out" if answer.removed else ""),
            len(answer.missing),
        ),
    ]
    table = table_of(
        ("files", "count"), [row for row in rows if row[1] or row[0] in ("understood by weights", "")], answer.zoo
    )
    if answer.advice:
        named = [Path(file).name for file in answer.understood[FoundBy.METADATA]]
        table.caption = Text(plain(f"By metadata only: {listed(named)}. {answer.advice}"))
    return table


def inspect_table(answer: InspectAnswer) -> Table:
    """All of one file, or a line for each of many."""
    if len(answer.files) == 1:
        (found,) = answer.files
        rows = [
            (key, "; ".join(map(str, value)) if key == "problems" else listed(value))
            for key, value in found.items()
            if value not in (None, [])
        ]
        return table_of(("fact", "found"), rows[1:], str(found["file"]))
    columns = ("family", "format", "ranks", "scales", "trigger_words")
    lines = [
        (Path(found["file"]).name, *(listed(found[column], MOST_SHOWN) for column in columns)) for found in answer.files
    ]
    table = table_of(("file", "family", "format", "rank", "scale", "trigger words"), lines, f"{len(lines)} files")
    table.caption = Text(
        "\n".join(
            plain(f"{Path(found['file']).name}: {problem}") for found in answer.files for problem in found["problems"]
        )
    )
    return table


def describe_table(answer: DescribeAnswer) -> Table:
    """What changed in each side-car or card, old and new."""
    rows = []
    for file in answer.files:
        for number, change in enumerate(file.changes):
            rows.append(("" if number else file.target, change.field, in_cell(change.old), in_cell(change.new)))
    changed = len({file.target for file in answer.files if file.changes})
    done = "nothing was written" if answer.dry_run else "written"
    said = (
        f"{changed} of {len(answer.files)} {answer.form}s change ({done})"
        if rows
        else f"nothing to change in {len(answer.files)} {answer.form}s"
    )
    return table_of(("in", "field", "old", "new"), rows, said)


def in_cell(value: object) -> str:
    """A value of a field."""
    if isinstance(value, dict):
        value = {key: inside for key, inside in value.items() if key != WROTE}  # which stands in the other rows
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def listed(value: object, most: int = MOST_LISTED) -> str:
    """A value, or the first of many."""
    if not isinstance(value, list):
        return "" if value is None else str(value)
    shown = ", ".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in value[:most])
    return f"{shown}, ..." if len(value) > most else shown


def similar_table(answer: SimilarAnswer) -> Table:
    """The look-alikes of one file."""
    found = "" if answer.hits else ": none is like it"
    table = table_of(
        LIKE,
        map(like_row, answer.hits),
        f"{answer.file} ({answer.family}), compared with {answer.compared} LoRAs{found}",
    )
    table.caption = Text(merge_line(answer.merge)) if answer.merge else None
    return table


def duplicates_table(answer: DuplicatesAnswer) -> Table:
    """Groups of one update, then related pairs and merges."""
    rows: list[tuple[object, ...]] = []
    for number, group in enumerate(answer.groups, 1):
        rows += [(number, *like_row(like)) for like in group]
    for one, other in answer.related[:MOST_PAIRS]:
        rows += [("", one.path or one.name, "", "", ""), ("~", *like_row(other))]
    found = (
        f"{len(answer.groups)} groups with one update, {len(answer.related)} related pairs, {len(answer.merges)} merges"
    )
    table = table_of(("", *LIKE), rows, f"{answer.compared} LoRAs: {found}")
    table.caption = Text("\n".join(map(merge_line, answer.merges)))
    return table


def like_row(like: Like) -> tuple[object, ...]:
    """One look-alike."""
    return like.path or like.name, like.relation, f"{like.cosine:.3f}", f"{like.strength:.2f}"


def merge_line(merge: MergeAnswer) -> str:
    """A merge in words."""
    return plain(
        f"{merge.name} = "
        + " + ".join(f"{part.weight:.2f} x {part.name}" for part in merge.parts)
        + f" ({merge.explained:.0%} of it)"
    )


def train_table(answer: TrainAnswer) -> Table:
    """What was trained, and what it says of concepts that it had not seen."""
    best = ", ".join(
        f"{layer} {said:.2f}" for layer, said in sorted(answer.layers.items(), key=lambda item: -item[1])[:3]
    )
    rows: list[tuple[object, ...]] = [
        ("expert", answer.expert),
        ("model tree, family", f"{answer.tree}, {answer.family}"),
        ("space", answer.space),
        (
            "LoRAs",
            ", ".join(f"{count} {split}" for split, count in answer.models.items())
            + (f"; {answer.left_out} left out" if answer.left_out else ""),
        ),
        ("concepts", ", ".join(f"{count} {split}" for split, count in answer.concepts.items())),
        ("aims at", answer.targets),
        ("layers", f"{len(answer.layers)}; the best: {best}"),
    ]
    rows += [
        (f"validation {name}", f"{value:.1%} of {answer.validation_models}")
        for name, value in answer.validation.items()
    ]
    return table_of(("", "trained"), rows, f"{answer.kind}, {answer.took_s} s")


def evaluation_tables(document: dict[str, Any]) -> Group:
    """Metrics beside baselines, then what changes of files do, then what was measured over several seeds while the miniature was built."""
    tables = [metrics_table(document)]
    if document["changed_files"]:
        tables.append(changes_table(document))
    for name, rows in document.get("measured_while_building", {}).items():
        if name.startswith("categories-"):
            tables.append(categories_table(name, rows))
        else:
            tables.append(seeds_table(name, rows) if isinstance(rows, list) else elsewhere_table(name, rows))
    return Group(*tables)


def metrics_table(document: dict[str, Any]) -> Table:
    """Metrics with their intervals, beside the baselines."""
    baselines = document["baselines"]
    rows = []
    for name, metric in document["metrics"].items():
        others = [percent(metrics[name]) if name in metrics else "" for metrics in baselines.values()]
        rows.append((name, percent(metric), *others, f"{metric['chance']:.1%}", metric["n"]))
    return table_of(
        ("metric", "Loradex", *baselines, "chance", "n"),
        rows,
        f"{document['zoo']}: % with 95 % intervals over {document.get('resampled', 'concepts')}",
    )


def changes_table(document: dict[str, Any]) -> Table:
    """What is left after changes of the files."""
    changed = document["changed_files"]
    return table_of(
        ("change of held-out files", *HEADINGS),
        [(name, *map(percent, found.values())) for name, found in changed.items()],
        "",
    )


def seeds_table(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Mean and standard deviation over the seeds of each encoder."""
    encoders = dict.fromkeys(row["encoder"] for row in rows)
    lines = []
    for encoder in encoders:
        found = [row["metrics"] for row in rows if row["encoder"] == encoder]
        lines.append(
            (encoder, *(over_seeds([one[metric]["value"] for one in found if metric in one]) for metric in SEEDED))
        )
    seeds = len(rows) // max(1, len(encoders))
    return table_of(
        ("encoder", *SEEDED.values()),
        lines,
        f"{name}: all LoRAs of held-out concepts, mean +- deviation over {seeds} seeds, %",
    )


def categories_table(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    """What each encoder says of all test models: accuracy a category in its own tree and across trees."""
    lines = []
    for encoder in dict.fromkeys(row["encoder"] for row in rows):
        found = [row for row in rows if row["encoder"] == encoder]
        first, across = found[0], [row["across_trees"]["value"] for row in found if "across_trees" in row]
        size = f"{first['parameters'] / 1e6:.2f}" if "parameters" in first else ""
        lines.append(
            (
                encoder,
                size,
                over_seeds([row["value"] for row in found]),
                percent(first),
                over_seeds(across),
                first["n"],
                len(found),
            )
        )
    headings = ("encoder", "million parameters", "accuracy", "of the first seed", "across trees", "n", "seeds")
    return table_of(
        headings,
        lines,
        f"{name}: all test models, % of categories told rightly, chance 50; mean +- deviation over seeds, 95 % interval over models",
    )


def elsewhere_table(name: str, rows: dict[str, Any]) -> Table:
    """One row a group of models and metric."""
    lines = [
        (group, metric, percent(value), f"{value['chance']:.1%}", value["n"])
        for group, metrics in rows.items()
        for metric, value in metrics.items()
    ]
    return table_of(
        ("models", "metric", "%", "chance", "n"), lines, f"{name}: models of other trainers and trees, and whole models"
    )


def over_seeds(values: Sequence[float]) -> str:
    """Mean and deviation in per cent."""
    return f"{100 * mean(values):.1f} +- {100 * (stdev(values) if len(values) > 1 else 0):.1f}" if values else ""


def percent(metric: dict[str, float]) -> str:
    """A fraction and its interval in per cent."""
    return f"{100 * metric['value']:.1f} [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]"


class RateColumn(ProgressColumn):
    """Files a second."""

    def render(self, task: Task) -> Text:
        """The rate of the last half minute."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def progress_bar(what: str = "Reading") -> Iterator[Report]:
    """A function that draws progress on stderr, in a terminal only."""
    columns = (
        TextColumn(what),
        BarColumn(BAR),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total, file: progress.update(
            task, completed=done, total=total, description=plain(file[-40:])
        )
