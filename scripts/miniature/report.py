"""``python -m scripts.miniature report``: the results of a build as the tables of docs/experiments.md and README."""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import mean, stdev
from typing import Any, Final

from scripts.miniature.settings import Build

FLEETS: Final = ("a", "b")
BRIEF: Final = ("top1", "all_top1", "map")
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
    """Print every table that can be made."""
    for lines in (
        validation(build, "ablation"),
        validation(build, "recipes"),
        *(reading(build, fleet) for fleet in FLEETS),
        elsewhere(build),
    ):
        sys.stdout.write("\n".join([*lines, ""]) + "\n")


def validation(build: Build, step: str) -> Iterator[str]:
    """Each trial on validation concepts: top-1 / top-1 of all / mAP in both trees, over the seeds that it was run with."""
    rows: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for fleet in FLEETS:
        path = build / f"{step}-{fleet}.jsonl"
        for row in map(json.loads, path.read_text().splitlines() if path.exists() else []):
            rows[row["name"]][fleet].append(row)
    yield from heading([step, *(f"tree {fleet}" for fleet in FLEETS), "best epoch"])
    for name, by_fleet in rows.items():
        cells = [
            " / ".join(spread([row[key] for row in by_fleet[fleet]]) for key in BRIEF) if by_fleet[fleet] else ""
            for fleet in FLEETS
        ]
        epochs = [row["epochs"] for fleet in FLEETS for row in by_fleet[fleet] if "epochs" in row]
        yield line([name, *cells, f"{min(epochs):.0f} to {max(epochs):.0f}" if epochs else ""])


def reading(build: Build, fleet: str) -> Iterator[str]:
    """The one look at held-out concepts, over the seeds."""
    path = build / f"reading-{fleet}.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    yield from heading([f"tree {fleet}", *METRICS.values()])
    for encoder in dict.fromkeys(row["encoder"] for row in rows):
        found = [row["metrics"] for row in rows if row["encoder"] == encoder]
        yield line([encoder, *(spread([one[metric]["value"] for one in found if metric in one]) for metric in METRICS)])
    if rows:
        yield line(
            [
                "chance",
                *(
                    f"{100 * rows[0]['metrics'][metric]['chance']:.1f}" if metric in rows[0]["metrics"] else ""
                    for metric in METRICS
                ),
            ]
        )


def elsewhere(build: Build) -> Iterator[str]:
    """Models of other trainers and trees, and whole models."""
    path = build / "elsewhere.json"
    document = json.loads(path.read_text()) if path.exists() else {}
    yield from heading(["models", "metric", "%", "n"])
    for group, metrics in document.items():
        for name, found in metrics.items():
            yield line(
                [
                    group,
                    name,
                    f"{100 * found['value']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]",
                    str(found["n"]),
                ]
            )


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation in per cent."""
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "") if values else ""


def heading(cells: Sequence[str]) -> Iterator[str]:
    """The two first lines of a table."""
    yield line(cells)
    yield line(["---"] * len(cells))


def line(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"
