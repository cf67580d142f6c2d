"""Step ``report``: prints the results of a build as the tables of docs/results.md and docs/experiments.md."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import mean, stdev
from typing import Any, Final

from scripts.miniature.settings import Build

FLEETS: Final = ("a", "b")
BRIEF_METRICS: Final = ("top1", "all_top1", "map")
METRICS: Final = {
    "zero_shot_top1_heldout": "top-1 of 165",
    "zero_shot_top5_heldout": "top-5",
    "zero_shot_top1_all": "top-1 of 828",
    "text_to_model_recall_at_1": "recall@1",
    "text_to_model_recall_at_10": "recall@10",
    "text_to_model_map": "mAP",
    "in_distribution_top1": "in-distribution",
    "nearest_model_top1": "nearest model",
    "one_class_auroc": "one-class AUROC",
}


def report(build: Build) -> None:
    """Print every table of the steps that have results."""
    for lines in (
        validation_table(build, "ablation"),
        validation_table(build, "recipes"),
        *(heldout_table(build, fleet) for fleet in FLEETS),
        transfer_table(build),
    ):
        sys.stdout.write("\n".join([*lines, ""]) + "\n")


def validation_table(build: Build, step: str) -> Iterator[str]:
    """Rows of all trials on validation concepts, over their seeds.

    The metrics are top-1 / top-1 among all concepts / mAP, in both trees.
    """
    rows: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for fleet in FLEETS:
        path = build / f"{step}-{fleet}.jsonl"
        for row in map(json.loads, path.read_text().splitlines() if path.exists() else []):
            rows[row["name"]][fleet].append(row)
    yield from table_head([step, *(f"tree {fleet}" for fleet in FLEETS), "best epoch"])
    for name, by_fleet in rows.items():
        cells = [
            " / ".join(mean_and_deviation([row[key] for row in by_fleet[fleet]]) for key in BRIEF_METRICS)
            if by_fleet[fleet]
            else ""
            for fleet in FLEETS
        ]
        epochs = [row["epochs"] for fleet in FLEETS for row in by_fleet[fleet] if "epochs" in row]
        yield table_row([name, *cells, f"{min(epochs):.0f} to {max(epochs):.0f}" if epochs else ""])


def heldout_table(build: Build, fleet: str) -> Iterator[str]:
    """Rows of all encoders on held-out concepts, over the seeds, and of chance."""
    path = build / f"reading-{fleet}.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    yield from table_head([f"tree {fleet}", *METRICS.values()])
    for encoder in dict.fromkeys(row["encoder"] for row in rows):
        metrics = [row["metrics"] for row in rows if row["encoder"] == encoder]
        cells = ([values[name]["value"] for values in metrics if name in values] for name in METRICS)
        yield table_row([encoder, *map(mean_and_deviation, cells)])
    if rows:
        first = rows[0]["metrics"]
        yield table_row(
            ["chance", *(f"{100 * first[name]['chance']:.1f}" if name in first else "" for name in METRICS)]
        )


def transfer_table(build: Build) -> Iterator[str]:
    """Rows for LoRAs of other trainers and trees, and for full models."""
    path = build / "elsewhere.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    yield from table_head(["models", "metric", "%", "n"])
    for group, metrics in document.items():
        for name, value in metrics.items():
            yield table_row(
                [
                    group,
                    name,
                    f"{100 * value['value']:.1f} [{100 * value['low']:.1f}, {100 * value['high']:.1f}]",
                    str(value["n"]),
                ]
            )


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and standard deviation in per cent."""
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "") if values else ""


def table_head(cells: Sequence[str]) -> Iterator[str]:
    """The first two lines of a table in Markdown."""
    yield table_row(cells)
    yield table_row(["---"] * len(cells))


def table_row(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
