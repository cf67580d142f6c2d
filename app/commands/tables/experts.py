"""Tables of ``loradex train`` and ``evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from loradex.app.commands.tables.adaptive import AdaptiveTable, FirstFitting, with_blank_lines
from loradex.app.commands.tables.columns import Column, Kind

if TYPE_CHECKING:
    from loradex.app.experts.training_options import TrainAnswer

SEED_METRICS = {
    "zero_shot_top1_heldout": "top 1 of held-out",
    "zero_shot_top1_all": "top 1 of all",
    "text_to_model_map": "mAP",
    "in_distribution_top1": "seen concepts",
    "nearest_model_top1": "nearest model",
}
CHANCE, COUNT = Column("chance", Kind.NUMBER), Column("n", Kind.NUMBER)


def train_table(answer: TrainAnswer) -> AdaptiveTable:
    """What was trained, and its metrics on validation concepts."""
    best = sorted(answer.layers.items(), key=lambda item: -item[1])[:3]
    left_out = f"; {answer.left_out} left out" if answer.left_out else ""
    rows: list[tuple[str, object]] = [
        ("expert", answer.expert),
        ("model tree, family", f"{answer.tree}, {answer.family}"),
        ("space", answer.space),
        ("LoRAs", ", ".join(f"{count} {split}" for split, count in answer.models.items()) + left_out),
        ("concepts", ", ".join(f"{count} {split}" for split, count in answer.concepts.items())),
        ("aims at", answer.targets),
        (
            "layers",
            f"{len(answer.layers)}; the best: {', '.join(f'{layer} {relevance:.2f}' for layer, relevance in best)}",
        ),
    ]
    rows += [
        (f"validation {name}", f"{value:.1%} of {answer.validation_models}")
        for name, value in answer.validation.items()
    ]
    columns = Column(""), Column("trained", Kind.PROSE)
    return AdaptiveTable(f"{answer.kind}, {answer.took_s} s", columns, rows)


def evaluation_tables(document: dict[str, Any]) -> Group:
    """Metrics beside baselines, after changes of files, and, where they are known, over seeds and of other models."""
    tables: list[RenderableType] = [metrics_table(document)]
    if document["changed_files"]:
        tables.append(changes_table(document["changed_files"]))
    for name, measured in document.get("measured_while_building", {}).items():
        if name.startswith("categories-"):
            tables.append(category_seeds_table(name, measured))
        elif isinstance(measured, list):
            tables.append(seeds_table(name, measured))
        else:
            tables.append(other_models_table(name, measured))
    return with_blank_lines(tables)


def metrics_table(document: dict[str, Any]) -> FirstFitting:
    """Metrics with their intervals: the baselines beside them, or below each metric on a narrow terminal."""
    baselines, metrics = document["baselines"], document["metrics"]
    title = f"{document['zoo']}: % with 95 % intervals over {document.get('resampled', 'concepts')}"
    beside, below = [], []
    for name, metric in metrics.items():
        others = {baseline: values[name] for baseline, values in baselines.items() if name in values}
        numbers = f"{metric['chance']:.1%}", metric["n"]
        beside.append((name, percent(metric), *(percent(others.get(baseline)) for baseline in baselines), *numbers))
        below.append((name, percent(metric), *numbers))
        below += [(f"  {baseline}", percent(other), "", "") for baseline, other in others.items()]
    first = Column("metric"), Column("Loradex")
    wide = AdaptiveTable(title, (*first, *map(Column, baselines), CHANCE, COUNT), beside)
    below_title = f"{title}; baselines below each metric" if baselines else title
    return FirstFitting([wide, AdaptiveTable(below_title, (*first, CHANCE, COUNT), below)])


def changes_table(changed_files: dict[str, Any]) -> AdaptiveTable:
    """Metrics of held-out files before and after changes of the files."""
    columns = Column("change"), Column("top 1 of all concepts"), Column("cosine with the original")
    rows = [(name, *map(percent, metrics.values())) for name, metrics in changed_files.items()]
    return AdaptiveTable("held-out files after changes: % with 95 % intervals", columns, rows)


def seeds_table(name: str, measured: Sequence[dict[str, Any]]) -> AdaptiveTable:
    """Mean and standard deviation of metrics over the seeds of each encoder."""
    encoders = dict.fromkeys(row["encoder"] for row in measured)
    rows = []
    for encoder in encoders:
        runs = [row["metrics"] for row in measured if row["encoder"] == encoder]
        values = [[metrics[metric]["value"] for metrics in runs if metric in metrics] for metric in SEED_METRICS]
        rows.append((encoder, *map(mean_and_deviation, values)))
    seeds = len(measured) // max(1, len(encoders))
    title = f"{name}: all LoRAs of held-out concepts, mean ± deviation over {seeds} seeds, %"
    return AdaptiveTable(title, [Column("encoder", Kind.PROSE), *map(Column, SEED_METRICS.values())], rows)


def category_seeds_table(name: str, measured: Sequence[dict[str, Any]]) -> AdaptiveTable:
    """Accuracy of each encoder's categories over all test models, in its own tree and across trees."""
    rows = []
    for encoder in dict.fromkeys(row["encoder"] for row in measured):
        runs = [row for row in measured if row["encoder"] == encoder]
        first = runs[0]
        rows.append(
            (
                encoder,
                f"{first['parameters'] / 1e6:.2f}" if "parameters" in first else "",
                mean_and_deviation([row["value"] for row in runs]),
                percent(first),
                mean_and_deviation([row["across_trees"]["value"] for row in runs if "across_trees" in row]),
                first["n"],
                len(runs),
            )
        )
    columns = (
        Column("encoder", Kind.PROSE),
        Column("million parameters", Kind.NUMBER, drop=3),
        Column("accuracy"),
        Column("of the first seed"),
        Column("across trees"),
        Column("n", Kind.NUMBER, drop=2),
        Column("seeds", Kind.NUMBER, drop=1),
    )
    title = f"{name}: all test models, % of categories predicted correctly, chance 50; mean ± deviation over seeds, 95 % interval over models"
    return AdaptiveTable(title, columns, rows)


def other_models_table(name: str, measured: dict[str, Any]) -> AdaptiveTable:
    """Metrics of LoRAs of other trainers and trees, and of full models."""
    rows = [
        (models, metric, percent(value), f"{value['chance']:.1%}", value["n"])
        for models, metrics in measured.items()
        for metric, value in metrics.items()
    ]
    columns = Column("models", Kind.SECTION), Column("metric"), Column("%"), CHANCE, COUNT
    return AdaptiveTable(f"{name}: models of other trainers and trees, and full models", columns, rows)


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and standard deviation in percent."""
    return f"{100 * mean(values):4.1f} ± {100 * (stdev(values) if len(values) > 1 else 0):.1f}" if values else ""


def percent(metric: dict[str, float] | None) -> str:
    """A fraction with its interval in percent."""
    return f"{100 * metric['value']:5.1f} [{100 * metric['low']:.1f}, {100 * metric['high']:.1f}]" if metric else ""
