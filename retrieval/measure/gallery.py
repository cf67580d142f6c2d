"""Labelled models beside the texts of all concepts, and every metric of one encoder on them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loradex.retrieval.measure.metrics import (
    Metric,
    bootstrapped,
    calibration_error,
    summarise,
    text_to_model,
    top_k,
    zero_shot,
)
from loradex.retrieval.measure.neighbours import nearest_label, one_class
from loradex.retrieval.space.calibration import NONE_SHARE, Calibration
from loradex.retrieval.space.labels import SURE

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
            metrics["in_distribution_top1"] = zero_shot(
                table[np.ix_(seen, known)], np.searchsorted(known, self.concept[seen]), 1
            )
        return metrics

    def neighbours(self, vectors: Tensor) -> dict[str, Metric]:
        """What the nearest model says of models of held-out concepts: the first of each concept is the reference, the others are the queries.

        Args:
            vectors: (models, dim), unit.
        """
        rows = np.flatnonzero(self.split == HELD_OUT)
        references = rows[np.unique(self.concept[rows], return_index=True)[1]]
        queries = np.setdiff1d(rows, references)
        if not len(queries):
            return {}
        table = vectors.double().numpy()
        parts = table[queries], table[references], self.concept[queries], self.concept[references]
        found = {"nearest_model_top1": nearest_label(*parts)}
        return found | {"one_class_auroc": one_class(*parts)} if len(np.unique(self.concept[queries])) > 1 else found

    def calibrated(self, calibration: Calibration, scores: Tensor) -> dict[str, Metric]:
        """How far probabilities of held-out concepts among all can be trusted, and what the answers are worth that are not "unknown".

        Args:
            calibration: that of the expert.
            scores: (models, concepts), as the calibration gives them.
        """
        rows = np.flatnonzero(self.split == HELD_OUT)
        held, truth = scores[rows], torch.from_numpy(self.concept[rows])
        best = calibration.probabilities(held)[:, :-1].max(1)
        sure, right = best.values.double().numpy(), (best.indices == truth).double().numpy()
        without = (
            calibration.probabilities(held.scatter(1, truth[:, None], float("-inf")))[:, :-1]
            .max(1)
            .values.double()
            .numpy()
        )
        concepts, answered = self.concept[rows], sure >= SURE
        often = round(1 / NONE_SHARE) - 1  # the truth is a candidate, for each time that it is not

        def error(some: NDArray[np.int64]) -> float:
            confidence = np.concatenate([np.tile(sure[some], often), without[some]])
            return calibration_error(confidence, np.concatenate([np.tile(right[some], often), np.zeros(len(some))]))

        metrics = {
            "calibration_error": bootstrapped(error, concepts, 0.0),
            "answered": summarise(answered.astype(np.float64), concepts, 0.0),
            "answered_when_the_truth_is_no_candidate": summarise((without >= SURE).astype(np.float64), concepts, 0.0),
        }
        if answered.any():
            metrics["right_when_answered"] = summarise(right[answered], concepts[answered], 1 / scores.shape[1])
        return metrics

    def describe(self) -> dict[str, int]:
        """How many concepts and models of each split there are."""
        concepts = {
            f"concepts_{name}": int((self.concept_split == name).sum()) for name in np.unique(self.concept_split)
        }
        return concepts | {f"models_{name}": int((self.split == name).sum()) for name in np.unique(self.split)}


def synonym_metric(words: Tensor, labels: Tensor, truth: NDArray[np.int64], k: int = 10) -> Metric:
    """How often a word that no caption used has its concept among the ``k`` nearest labels; ``truth`` are rows of ``labels``."""
    cases = top_k((words @ labels.T).double().numpy(), truth, k)
    return summarise(cases, truth, k / len(labels))
