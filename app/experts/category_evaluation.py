"""``loradex evaluate`` on whole models whose headers name categories: how well an expert tells those of models that it never saw."""

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
from loradex.retrieval.measure.metrics import Metric, auroc, bootstrapped, calibration_error, category_accuracy
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.training.category_dataset import Classifier, find_classifiers

SPLIT: Final = "test"
FEWEST_RANKED: Final = 5  # models, to say how well a search orders them


def evaluate_classifiers(zoo: Path, found: Sequence[Classifier], encoder: Encoder) -> dict[str, Any]:
    """What the expert that reads most of the ``found`` test models says of them; those that others read, or none, are counted.

    Raises:
        FileUnsupported: no expert reads any.
    """
    read: dict[str, list[tuple[Classifier, Tensor]]] = defaultdict(list)
    tests = [model for model in found if model.split == SPLIT]
    for model in tests:
        try:
            expert, layers = encoder.router.route(encoder.router.open(model.path))
        except (FileError, NoExpert):
            continue
        if isinstance(expert, CategoryExpert):
            read[expert.tree].append((model, expert.probabilities(layers)[0]))
    if not read:
        raise FileUnsupported(
            f"{zoo}: expected test models that an expert tells the categories of, found none of {len(tests)}; train one with `loradex train`"
        )
    tree, told = max(read.items(), key=lambda item: len(item[1]))
    expert = encoder.categories[tree]
    members = np.array([[name in model.categories for name in expert.categories] for model, _ in told])
    split = {
        f"models_{SPLIT}": len(told),
        "models_of_other_trees": sum(map(len, read.values())) - len(told),
        "refused": len(tests) - sum(map(len, read.values())),
        "categories": len(expert.categories),
        "categories_unknown_to_it": len(
            {name for model, _ in told for name in model.categories}.difference(expert.categories)
        ),
    }
    metrics = metrics_of(expert, torch.stack([probabilities for _, probabilities in told]), members)
    told_of = {name: asdict(metric) for name, metric in metrics.items()}
    return {
        "zoo": str(zoo),
        "split": split,
        "resampled": "models",
        "metrics": told_of,
        "baselines": {},
        "changed_files": {},
    }


def evaluate_shipped_classifiers(tree: str, folder: Path = MINIATURE) -> dict[str, Any]:
    """The same of the classifiers of one tree of the miniature, beside what was measured on all of them while it was built."""
    models, kept = folder / "classifiers" / tree, folder / "measured" / f"categories-{tree}.json"
    document = evaluate_classifiers(models, find_classifiers(models), Encoder.load(folder / "encoder"))
    return document | {"zoo": f"miniature/{tree}", "measured_while_building": {kept.stem: read_json(kept)}}


def metrics_of(expert: CategoryExpert, probabilities: Tensor, members: np.ndarray) -> dict[str, Metric]:
    """Metrics of ``probabilities`` (models, categories) against ``members`` (models, categories), with intervals over models."""
    odds = probabilities.double().numpy()
    found = (
        (expert.place(probabilities) @ expert.texts.mT).double().numpy()
    )  # what a search for each category's words sees
    models, confidence, right = (
        np.arange(len(odds)),
        np.maximum(odds, 1 - odds),
        ((odds > 0.5) == members).astype(np.float64),
    )

    def error(rows: np.ndarray) -> float:
        return calibration_error(confidence[rows].ravel(), right[rows].ravel())

    def order(rows: np.ndarray) -> float:
        ranked = [
            auroc(said[own], said[~own])
            for said, own in zip(found[rows].T, members[rows].T, strict=True)
            if 0 < own.sum() < len(own)
        ]
        return float(np.mean(ranked)) if ranked else 0.5

    metrics = {
        "accuracy_per_category": category_accuracy(odds - 0.5, members),
        "calibration_error": bootstrapped(error, models, 0.0),
    }
    if len(odds) >= FEWEST_RANKED and (members.any(0) & ~members.all(0)).any():
        metrics["category_to_model_auroc"] = bootstrapped(order, models, 0.5)
    return metrics
