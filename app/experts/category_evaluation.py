"""Evaluates a category expert on full models that it never saw and whose headers name their categories."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from loradex.app.paths import MINIATURE, read_json
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileError, FileUnsupported, NoExpert
from loradex.retrieval.measure.metrics import Metric, auroc, bootstrap_statistic, calibration_error, category_accuracy
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.training.labelled_classifiers import LabelledClassifier, find_classifiers

TEST_SPLIT: Final = "test"
MIN_RANKED_MODELS: Final = 5  # to measure how well a search ranks them


def evaluate_classifiers(folder: Path, classifiers: Sequence[LabelledClassifier], encoder: Encoder) -> dict[str, Any]:
    """Evaluate the expert that reads most of the test models; the other test models are counted.

    Raises:
        FileUnsupported: no expert reads any.
    """
    predictions: dict[str, list[tuple[LabelledClassifier, Tensor]]] = defaultdict(list)  # by tree
    test_models = [model for model in classifiers if model.split == TEST_SPLIT]
    for model in test_models:
        try:
            expert, layers = encoder.router.route(encoder.router.open(model.path))
        except (FileError, NoExpert):
            continue
        if isinstance(expert, CategoryExpert):
            predictions[expert.tree].append((model, expert.probabilities(layers)[0]))
    if not predictions:
        raise FileUnsupported(
            f"{folder}: expected test models whose categories an expert predicts, found none of {len(test_models)}; train one with `loradex train`"
        )
    tree, evaluated = max(predictions.items(), key=lambda item: len(item[1]))
    expert = encoder.categories[tree]
    members = np.array([[name in model.categories for name in expert.categories] for model, _ in evaluated])
    predicted_models = sum(map(len, predictions.values()))
    split = {
        f"models_{TEST_SPLIT}": len(evaluated),
        "models_of_other_trees": predicted_models - len(evaluated),
        "refused": len(test_models) - predicted_models,
        "categories": len(expert.categories),
        "categories_unknown_to_it": len(
            {name for model, _ in evaluated for name in model.categories}.difference(expert.categories)
        ),
    }
    metrics = category_metrics(expert, torch.stack([probabilities for _, probabilities in evaluated]), members)
    return {
        "zoo": str(folder),
        "split": split,
        "resampled": "models",
        "metrics": {name: asdict(metric) for name, metric in metrics.items()},
        "baselines": {},
        "changed_files": {},
    }


def evaluate_shipped_classifiers(tree: str, folder: Path = MINIATURE) -> dict[str, Any]:
    """Evaluate the miniature's expert of one tree on its classifiers, with the figures from when it was built."""
    models, figures = folder / "classifiers" / tree, folder / "measured" / f"categories-{tree}.json"
    document = evaluate_classifiers(models, find_classifiers(models), Encoder.load(folder / "encoder"))
    return document | {"zoo": f"miniature/{tree}", "measured_while_building": {figures.stem: read_json(figures)}}


def category_metrics(expert: CategoryExpert, probabilities: Tensor, members: np.ndarray) -> dict[str, Metric]:
    """The metrics of predicted probabilities, with bootstrap intervals over models.

    Args:
        expert: made the predictions.
        probabilities: (models, categories).
        members: (models, categories), whether a model was trained on a category.
    """
    predicted = probabilities.double().numpy()
    # The scores of a search for the name of each category.
    search_scores = (expert.embed_probabilities(probabilities) @ expert.texts.mT).double().numpy()
    models = np.arange(len(predicted))
    confidence = np.maximum(predicted, 1 - predicted)
    is_right = ((predicted > 0.5) == members).astype(np.float64)

    def calibration_error_of(rows: np.ndarray) -> float:
        return calibration_error(confidence[rows].ravel(), is_right[rows].ravel())

    def mean_auroc(rows: np.ndarray) -> float:
        values = [
            auroc(scores[has_category], scores[~has_category])
            for scores, has_category in zip(search_scores[rows].T, members[rows].T, strict=True)
            if 0 < has_category.sum() < len(has_category)
        ]
        return float(np.mean(values)) if values else 0.5

    metrics = {
        "accuracy_per_category": category_accuracy(predicted - 0.5, members),
        "calibration_error": bootstrap_statistic(calibration_error_of, models, 0.0),
    }
    if len(predicted) >= MIN_RANKED_MODELS and (members.any(0) & ~members.all(0)).any():
        metrics["category_to_model_auroc"] = bootstrap_statistic(mean_auroc, models, 0.5)
    return metrics
