"""Zero-shot labels: which of some words a model's vector lies nearest to, and whether any of them is near enough."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from retrieval.space import Space


@dataclass(frozen=True, slots=True)
class Label:
    """A word, its cosine with the model's vector, and its calibrated probability among all candidates."""

    label: str
    score: float
    probability: float


def zero_shot(space: Space, model: Tensor, labels: Sequence[str], label_vectors: Tensor, k: int) -> list[Label]:
    """The ``k`` best labels for one model's vector (dim,), best first; ``label_vectors`` are (labels, dim)."""
    cosines = label_vectors @ model
    probabilities = space.probabilities(cosines)
    best = cosines.topk(min(k, len(labels))).indices.tolist()
    return [Label(labels[i], float(cosines[i]), float(probabilities[i])) for i in best]
