"""The metrics of an expert, measured or claimed, in a file beside its checkpoint (``mini-a.measured.json``)."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.probex.provenance import is_plain_text

MAX_BYTES: Final = 2**20
MAX_NAMES: Final = 1000  # of metrics and of their members
MAX_TEXT: Final = 1000  # characters
MAX_NUMBER: Final = 1e12
CLAIMED: Final = "claimed"  # by whoever made the expert, elsewhere
MEASURED: Final = "measured here"  # by ``loradex train`` or ``evaluate``, or before the expert shipped
FORM_ERRORS: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
# What ``loradex evaluate`` notes of an expert of LoRAs.
NOTED_METRICS: Final = (
    "zero_shot_top1_heldout",
    "zero_shot_top5_heldout",
    "zero_shot_top1_all",
    "text_to_model_recall_at_1",
    "text_to_model_recall_at_10",
    "text_to_model_map",
    "in_distribution_top1",
    "answered",
    "right_when_answered",
    "calibration_error",
)


@dataclass(frozen=True, slots=True)
class ExpertMetrics:
    """Metrics of an expert, which the page shows.

    Attributes:
        on: a text that says on which models they were measured.
        metrics: for each metric ``value`` (a fraction) and ``n``, and if known ``low``, ``high`` and ``chance``.
        measured_by: ``claimed`` until they are measured on this machine, then ``measured here``.
    """

    on: str
    metrics: Mapping[str, Mapping[str, float]]
    measured_by: str = MEASURED

    def document(self) -> dict[str, Any]:
        """The metrics as JSON."""
        return asdict(self)

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Read what ``document`` made; without ``measured_by``, as in older files, they were measured here.

        Raises:
            One of ``FORM_ERRORS``: it has another form.
        """
        metrics = {
            str(name): {str(key): float(value) for key, value in metric.items()}
            for name, metric in document["metrics"].items()
        }
        names = [*metrics, *(key for metric in metrics.values() for key in metric)]
        if len(names) > MAX_NAMES or not all(map(is_plain_text, names)):
            raise ValueError("too many metrics, or a name that cannot be shown")
        numbers = [number for metric in metrics.values() for number in metric.values()]
        if not all({"value", "n"} <= metric.keys() for metric in metrics.values()) or not all(map(is_shown, numbers)):
            raise ValueError("no value and n of each metric")
        by = CLAIMED if document.get("measured_by") == CLAIMED else MEASURED
        return cls(str(document["on"])[:MAX_TEXT], metrics, by)

    def save(self, expert: Path) -> None:
        """Write the metrics beside the checkpoint of the expert, whole or not at all.

        Raises:
            CheckpointError: the file cannot be written.
        """
        path = metrics_path(expert)
        temporary = path.with_name(f".{path.name}.part")
        try:
            temporary.write_text(json.dumps(self.document(), indent=1) + "\n", "utf-8")
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise CheckpointError(f"{path}: expected a place to write to, found: {error}; free some space") from None


def is_shown(number: float) -> bool:
    """Whether a number of a metric is finite, and not too long to be shown."""
    return abs(number) < MAX_NUMBER


def load_metrics(expert: Path) -> ExpertMetrics | None:
    """Read the metrics beside the checkpoint of an expert; None if there are none that can be read."""
    try:
        with metrics_path(expert).open("rb") as file:
            return ExpertMetrics.parse(json.loads(file.read(MAX_BYTES)))
    except (OSError, *FORM_ERRORS):
        return None


def note_measured(expert: Path, on: str, metrics: Mapping[str, Mapping[str, float]]) -> bool:
    """Write what was measured in place of what is claimed of an expert, or of nothing; returns whether it was.

    Args:
        expert: its checkpoint.
        on: a text that says on which models it was measured.
        metrics: of which ``NOTED_METRICS`` are noted.

    Raises:
        CheckpointError: they cannot be written.
    """
    known = load_metrics(expert)
    noted = {name: metrics[name] for name in NOTED_METRICS if name in metrics}
    if (known and known.measured_by != CLAIMED) or not noted:
        return False
    ExpertMetrics(on, noted).save(expert)
    return True


def metrics_path(expert: Path) -> Path:
    """The path of the metrics file of a checkpoint."""
    return expert.with_suffix(".measured.json")
