"""Galleries: labelled models and the texts of all concepts, with every metric of one encoder on them."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loradex.retrieval.measure.metrics import (
    Metric,
    bootstrap_mean,
    bootstrap_statistic,
    calibration_error,
    text_to_model_metrics,
    top_k_hits,
    zero_shot_accuracy,
)
from loradex.retrieval.measure.neighbours import nearest_label_accuracy, one_class_auroc
from loradex.retrieval.space.calibration import NONE_SHARE, Calibration
from loradex.retrieval.space.labels import ABSTAIN_BELOW

HELD_OUT, SEEN = "test_holdout", "test"  # splits of models, as Model-J names them


@dataclass(frozen=True, slots=True)
class Gallery:
    """The labels of the models that an encoder is measured on.

    Attributes:
        concept_split: (concepts,), "train", "validation" or "heldout".
        concept: (models,), rows of ``concept_split``.
        split: (models,), by Model-J's names.
    """

    concept_split: NDArray[np.str_]
    concept: NDArray[np.int64]
    split: NDArray[np.str_]

    def ranking_metrics(self, scores: Tensor, search_scores: Tensor | None = None) -> dict[str, Metric]:
        """Zero-shot classification and search of models of held-out concepts.

        Also top-1 among seen concepts, where the gallery has models of these.

        Args:
            scores: (models, concepts); higher is nearer.
            search_scores: (models, concepts), by which a search ranks models; None for ``scores``.
        """
        table = scores.double().numpy()
        search_table = table if search_scores is None else search_scores.double().numpy()
        rows = np.flatnonzero(self.split == HELD_OUT)
        held_out_concepts = np.flatnonzero(self.concept_split == "heldout")
        truth, held_out = self.concept[rows], table[rows]
        column = np.searchsorted(held_out_concepts, truth)
        metrics = {
            f"zero_shot_top{k}_heldout": zero_shot_accuracy(held_out[:, held_out_concepts], column, k) for k in (1, 5)
        }
        metrics |= {f"zero_shot_top{k}_all": zero_shot_accuracy(held_out, truth, k) for k in (1, 5)}
        queries = np.unique(truth)
        metrics |= text_to_model_metrics(search_table[np.ix_(rows, queries)].T, queries, truth)
        seen_rows = np.flatnonzero(self.split == SEEN)
        if len(seen_rows):
            seen_concepts = np.flatnonzero(self.concept_split == "train")
            metrics["in_distribution_top1"] = zero_shot_accuracy(
                table[np.ix_(seen_rows, seen_concepts)], np.searchsorted(seen_concepts, self.concept[seen_rows]), 1
            )
        return metrics

    def neighbour_metrics(self, vectors: Tensor) -> dict[str, Metric]:
        """Nearest-neighbour metrics among models of held-out concepts.

        The first model of each concept is the reference, the others are the queries.

        Args:
            vectors: (models, dim), unit vectors.
        """
        rows = np.flatnonzero(self.split == HELD_OUT)
        references = rows[np.unique(self.concept[rows], return_index=True)[1]]
        queries = np.setdiff1d(rows, references)
        if not len(queries):
            return {}
        table = vectors.double().numpy()
        comparison = table[queries], table[references], self.concept[queries], self.concept[references]
        metrics = {"nearest_model_top1": nearest_label_accuracy(*comparison)}
        if len(np.unique(self.concept[queries])) > 1:
            metrics["one_class_auroc"] = one_class_auroc(*comparison)
        return metrics

    def calibration_metrics(self, calibration: Calibration, scores: Tensor) -> dict[str, Metric]:
        """How far the probabilities can be trusted, and how good the answers are where the encoder does not abstain.

        Measured on models of held-out concepts, named among all concepts.

        Args:
            calibration: of the expert.
            scores: (models, concepts), by the calibration.
        """
        rows = np.flatnonzero(self.split == HELD_OUT)
        held_out, truth = scores[rows], torch.from_numpy(self.concept[rows])
        best = calibration.probabilities(held_out)[:, :-1].max(1)
        confidence, right = best.values.double().numpy(), (best.indices == truth).double().numpy()
        without_truth = held_out.scatter(1, truth[:, None], float("-inf"))
        confidence_without = calibration.probabilities(without_truth)[:, :-1].max(1).values.double().numpy()
        concepts, answered = self.concept[rows], confidence >= ABSTAIN_BELOW
        repeats = round(1 / NONE_SHARE) - 1  # cases with the truth among the candidates, for each case without it

        def error(sample: NDArray[np.int64]) -> float:
            confidences = np.concatenate([np.tile(confidence[sample], repeats), confidence_without[sample]])
            hits = np.concatenate([np.tile(right[sample], repeats), np.zeros(len(sample))])
            return calibration_error(confidences, hits)

        answered_without = (confidence_without >= ABSTAIN_BELOW).astype(np.float64)
        metrics = {
            "calibration_error": bootstrap_statistic(error, concepts, 0.0),
            "answered": bootstrap_mean(answered.astype(np.float64), concepts, 0.0),
            "answered_when_the_truth_is_no_candidate": bootstrap_mean(answered_without, concepts, 0.0),
        }
        if answered.any():
            chance = 1 / scores.shape[1]
            metrics["right_when_answered"] = bootstrap_mean(right[answered], concepts[answered], chance)
        return metrics

    def split_sizes(self) -> dict[str, int]:
        """The number of concepts and of models in each split."""
        concepts = {
            f"concepts_{name}": int((self.concept_split == name).sum()) for name in np.unique(self.concept_split)
        }
        return concepts | {f"models_{name}": int((self.split == name).sum()) for name in np.unique(self.split)}


def synonym_accuracy(words: Tensor, labels: Tensor, truth: NDArray[np.int64], k: int = 10) -> Metric:
    """How often a word that no caption used has its concept among the ``k`` nearest labels.

    Args:
        words: (words, dim), unit vectors.
        labels: (concepts, dim), unit vectors.
        truth: (words,), rows of ``labels``.
        k: the number of nearest labels.
    """
    hits = top_k_hits((words @ labels.T).double().numpy(), truth, k)
    return bootstrap_mean(hits, truth, k / len(labels))
