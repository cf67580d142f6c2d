"""Labelled models beside the texts of all concepts, and every metric of one encoder on them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from retrieval.evaluate import Metric, summarise, text_to_model, top_k, zero_shot

HELD_OUT, SEEN = "test_holdout", "test"  # splits of models, as Model-J names them


@dataclass(frozen=True, slots=True)
class Gallery:
    """What an evaluation needs besides the models' vectors.

    Attributes:
        concept_split: (concepts,), "train", "validation" or "heldout".
        concept: (models,), numbers of concepts.
        split: (models,), Model-J's names.
    """

    concept_split: NDArray[np.str_]
    concept: NDArray[np.int64]
    split: NDArray[np.str_]

    def metrics(self, scores: Tensor) -> dict[str, Metric]:
        """Zero-shot and search on models of held-out concepts, and naming among seen concepts where such models are there.

        Args:
            scores: (models, concepts); higher is nearer.
        """
        table = scores.double().numpy()
        rows = np.flatnonzero(self.split == HELD_OUT)
        among = np.flatnonzero(self.concept_split == "heldout")
        truth, held = self.concept[rows], table[rows]
        column = np.searchsorted(among, truth)
        metrics = {f"zero_shot_top{k}_heldout": zero_shot(held[:, among], column, k) for k in (1, 5)}
        metrics |= {f"zero_shot_top{k}_all": zero_shot(held, truth, k) for k in (1, 5)}
        queries = np.unique(truth)
        metrics |= text_to_model(held[:, queries].T, queries, truth)
        seen = np.flatnonzero(self.split == SEEN)
        if len(seen):
            known = np.flatnonzero(self.concept_split == "train")
            metrics["in_distribution_top1"] = zero_shot(table[np.ix_(seen, known)], np.searchsorted(known, self.concept[seen]), 1)
        return metrics

    def describe(self) -> dict[str, int]:
        """How many concepts and models of each split there are."""
        concepts = {f"concepts_{name}": int((self.concept_split == name).sum()) for name in np.unique(self.concept_split)}
        return concepts | {f"models_{name}": int((self.split == name).sum()) for name in np.unique(self.split)}


def synonym_metric(words: Tensor, labels: Tensor, truth: NDArray[np.int64], k: int = 10) -> Metric:
    """How often a word that no caption used has its concept among the ``k`` nearest labels; ``truth`` are rows of ``labels``."""
    cases = top_k((words @ labels.T).double().numpy(), truth, k)
    return summarise(cases, truth, k / len(labels))
