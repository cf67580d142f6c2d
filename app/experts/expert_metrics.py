"""What was measured of an expert, in a file beside its checkpoint: ``mini-a.measured.json`` for ``mini-a.safetensors``."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

LARGEST: Final = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """Metrics as fractions, each with ``value`` and ``n`` and, where they were computed, ``low``, ``high`` and ``chance``; ``on`` says on what."""

    on: str
    metrics: Mapping[str, Mapping[str, float]]

    def save(self, expert: Path) -> None:
        """Write it beside an expert's checkpoint."""
        beside(expert).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")


def measured_of(expert: Path) -> Measured | None:
    """What was measured of an expert, if that was kept and can be read."""
    try:
        with beside(expert).open("rb") as file:
            found = json.loads(file.read(LARGEST))
        metrics = {
            str(name): {str(key): float(value) for key, value in metric.items()}
            for name, metric in found["metrics"].items()
        }
        if not all({"value", "n"} <= metric.keys() for metric in metrics.values()):
            return None
        return Measured(str(found["on"]), metrics)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def beside(expert: Path) -> Path:
    """Where it lies."""
    return expert.with_suffix(".measured.json")
