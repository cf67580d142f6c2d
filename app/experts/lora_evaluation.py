"""Metrics of an expert on labelled LoRAs of one tree."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.measure.gallery import HELD_OUT, Gallery
from loradex.retrieval.measure.metrics import Metric, bootstrap_mean, text_to_model_metrics, top_k_hits
from loradex.retrieval.measure.neighbours import nearest_label_accuracy, one_class_auroc
from loradex.retrieval.measure.variants import VARIANTS
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.space.likelihood import Likelihood, QuerySpread, log_likelihood_ratios, search_scores
from loradex.retrieval.training.labelled_loras import LabelledLora
from loradex.retrieval.training.packing import pack_files

COMPARED_BY_COSINE: Final = ("text_to_model_recall_at_1", "text_to_model_map")


class LoraEvaluation:
    """Labelled LoRAs of one tree, encoded by its expert, and the texts of all concepts."""

    def __init__(
        self,
        files: Sequence[LabelledLora],
        expert: Expert,
        encoder: Encoder,
        labels: Sequence[str],
        concept_split: np.ndarray,
    ) -> None:
        """Read and encode the files; ``concept_split`` (labels,) is the split of each label."""
        numbers = {label: number for number, label in enumerate(labels)}
        self.expert, self.names = expert, [file.path.parent.name for file in files]
        self.models = pack_files([file.path for file in files], expert.layers)
        self.gallery = Gallery(
            concept_split,
            np.array([numbers[file.class_name] for file in files]),
            np.array([file.split for file in files]),
        )
        self.vectors: Tensor = expert.encode_factors(self.models)
        self.held_out = np.flatnonzero(self.gallery.split == HELD_OUT)
        self.labels, self.texts = labels, encoder.encode_texts(labels)
        everyday = self.texts if encoder.everyday_texts is None else encoder.everyday_texts
        self.likelihood = Likelihood.of_expert(expert.calibration, everyday)
        backgrounds = [each.calibration.background for each in encoder.experts.values()]
        self.query_spread = QuerySpread.of(backgrounds, everyday)

    def metrics(self) -> dict[str, Metric]:
        """All metrics that need these models alone."""
        calibration = self.expert.calibration
        scores = calibration.scores(self.vectors, self.texts)
        return (
            self.ranking_metrics(scores, self.search_scores(self.vectors, self.texts))
            | self.gallery.calibration_metrics(calibration, scores)
            | self.gallery.neighbour_metrics(self.vectors)
        )

    def search_scores(self, vectors: Tensor, texts: Tensor) -> Tensor:
        """The scores (n, texts) by which a search ranks unit vectors (n, dim) of this tree."""
        return search_scores(self.likelihood, self.query_spread, vectors, texts)

    def ranking_metrics(self, scores: Tensor, search_scores: Tensor) -> dict[str, Metric]:
        """Metrics of labels by ``scores`` (models, concepts), and of a search by ``search_scores`` and by cosines."""
        by_cosine = self.gallery.ranking_metrics(scores)
        compared = {f"{name}_by_cosine": by_cosine[name] for name in COMPARED_BY_COSINE}
        return self.gallery.ranking_metrics(scores, search_scores) | compared

    def baseline_metrics(self, scores: Tensor) -> dict[str, Metric]:
        """Metrics of a baseline by its scores (models, concepts); a search ranks its models as Loradex does its own."""
        return self.ranking_metrics(scores, log_likelihood_ratios(scores / self.expert.calibration.temperature))

    def robustness(self) -> dict[str, dict[str, Metric]]:
        """For each change of the held-out files: top-1 accuracy among all concepts, and cosine with the original."""
        rows, calibration = torch.from_numpy(self.held_out), self.expert.calibration
        models = {layer: factors[rows] for layer, factors in self.models.items()}
        truth = self.gallery.concept[self.held_out]
        metrics = {}
        for name, change in VARIANTS.items():
            changed = change(models)
            if self.expert.has_enough_layers(changed):
                vectors = self.expert.encode_factors(changed)
                is_right = top_k_hits(calibration.scores(vectors, self.texts).double().numpy(), truth, 1)
                cosines = (vectors * self.vectors[rows]).sum(1).double().numpy()
                metrics[name] = {
                    "zero_shot_top1_all": bootstrap_mean(is_right, truth, 1 / len(self.texts)),
                    "cosine_with_the_original": bootstrap_mean(cosines, truth, 0.0),
                }
        return metrics

    def document(self, zoo: str, metrics: dict[str, Metric]) -> dict[str, Any]:
        """The JSON of ``loradex evaluate --json``, without baselines."""
        return {
            "zoo": zoo,
            "split": self.gallery.split_sizes(),
            "metrics": metrics_document(metrics),
            "baselines": {},
            "changed_files": {name: metrics_document(changed) for name, changed in self.robustness().items()},
            "same_prompt": repeated_labels(self.labels),
        }


def cross_tree_metrics(own: LoraEvaluation, other: LoraEvaluation) -> dict[str, Metric]:
    """Metrics over the held-out models of two trees, which share one space.

    Nearest models and one-class scores compare the models of one tree with those of the other; the search metrics are
    of text queries over the models of both.
    """
    own_vectors, other_vectors = own.vectors[own.held_out], other.vectors[other.held_out]
    own_concepts, other_concepts = own.gallery.concept[own.held_out], other.gallery.concept[other.held_out]
    shared = np.isin(own_concepts, other_concepts)
    comparison = (
        own_vectors[shared].double().numpy(),
        other_vectors.double().numpy(),
        own_concepts[shared],
        other_concepts,
    )
    queries = np.intersect1d(own_concepts, other_concepts)
    scores = torch.cat(
        [tree.search_scores(tree.vectors[tree.held_out], own.texts[queries]) for tree in (own, other)]
    ).mT
    search = text_to_model_metrics(scores.double().numpy(), queries, np.concatenate([own_concepts, other_concepts]))
    return {
        "nearest_model_of_the_other_tree_top1": nearest_label_accuracy(*comparison),
        "one_class_auroc_across_trees": one_class_auroc(*comparison),
    } | {f"both_trees_{name}": metric for name, metric in search.items()}


def repeated_labels(labels: Sequence[str]) -> list[str]:
    """Labels that several concepts share: no text can tell these concepts apart."""
    return sorted(label for label, count in Counter(labels).items() if count > 1)


def metrics_document(metrics: dict[str, Metric]) -> dict[str, dict[str, float]]:
    """Metrics as JSON."""
    return {name: asdict(metric) for name, metric in metrics.items()}
