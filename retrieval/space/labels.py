"""Zero-shot labels: the candidate texts nearest to a model's vector, with probabilities."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.space.calibration import Calibration

FORMAT: Final = "loradex-labels-1"
ABSTAIN_BELOW: Final = 0.5  # the probability of the best label under which the answer is "unknown"


@dataclass(frozen=True, slots=True)
class Label:
    """A label with its z-score and its calibrated probability among all candidates and "none of these"."""

    label: str
    score: float
    probability: float


@dataclass(frozen=True, slots=True)
class LabelList:
    """Candidate labels with their vectors (labels, dim) in a space."""

    names: tuple[str, ...]
    vectors: Tensor

    def best(self, calibration: Calibration, vector: Tensor, k: int) -> list[Label]:
        """The ``k`` best labels of one model's vector (dim,), best first."""
        scores = calibration.scores(vector[None], self.vectors)
        probabilities = calibration.probabilities(scores)[0]
        best = scores[0].topk(min(k, len(self.names))).indices.tolist()
        return [Label(self.names[i], float(scores[0, i]), float(probabilities[i])) for i in best]

    def save(self, path: Path) -> None:
        """Write a checkpoint, with vectors in float16.

        Raises:
            CheckpointError: the file cannot be written.
        """
        save_checkpoint(path, FORMAT, {"names": self.names}, {"vectors": self.vectors.half()})

    @classmethod
    def load(cls, path: Path) -> "LabelList":
        """Read a checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged or of another format.
        """
        settings, tensors = load_checkpoint(path, FORMAT)
        return cls(tuple(settings["names"]), tensors["vectors"].float())
