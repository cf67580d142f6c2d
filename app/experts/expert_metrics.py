"""The measured metrics of an expert, in a file beside its checkpoint (``mini-a.measured.json``)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class ExpertMetrics:
    """Metrics of an expert, which the page shows.

    Attributes:
        on: a text that says on which models they were measured.
        metrics: for each metric ``value`` (a fraction) and ``n``, and if known ``low``, ``high`` and ``chance``.
    """

    on: str
    metrics: Mapping[str, Mapping[str, float]]

    def save(self, expert: Path) -> None:
        """Write the metrics beside the checkpoint of the expert."""
        metrics_path(expert).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")


def load_metrics(expert: Path) -> ExpertMetrics | None:
    """Read the metrics beside the checkpoint of an expert; None if there are none that can be read."""
    try:
        with metrics_path(expert).open("rb") as file:
            document = json.loads(file.read(MAX_BYTES))
        metrics = {
            str(name): {str(key): float(value) for key, value in metric.items()}
            for name, metric in document["metrics"].items()
        }
        if not all({"value", "n"} <= metric.keys() for metric in metrics.values()):
            return None
        return ExpertMetrics(str(document["on"]), metrics)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def metrics_path(expert: Path) -> Path:
    """The path of the metrics file of a checkpoint."""
    return expert.with_suffix(".measured.json")
