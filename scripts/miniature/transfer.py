"""Step ``elsewhere``: measures the chosen recipe on LoRAs of other trainers, on other model trees and on full models.

The expert is that of tree ``b``; the other trees have the same architecture.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.lora import FullModel
from loradex.retrieval.measure.gallery import Gallery
from loradex.retrieval.measure.metrics import Metric, auroc, bootstrap_mean, bootstrap_statistic
from loradex.retrieval.probex.batched_factors import stack_layers
from loradex.retrieval.probex.familiarity import MIN_FAMILIARITY, Familiarity
from loradex.retrieval.training.concept_dataset import FINAL_SPLITS, HELD_OUT, TRAINING, ConceptDataset
from loradex.retrieval.training.fit import FittedModel, fit
from scripts.miniature.fleet_dataset import load_fleet_dataset
from scripts.miniature.recipes import OURS, ChosenRecipes
from scripts.miniature.settings import Build, atomic, log

HOME_FLEET = "b"
TREES = ("b", "c", "d")  # of one architecture; d is b trained further
OTHER_FLEETS = {
    "another trainer, rank 16, same prompt": "f",
    "another trainer, rank 16, prompts that name the concept": "e",
    "child of the tree (d)": "d",
    "stranger of the same structure (c)": "c",
}


def measure_transfer(build: Build) -> None:
    """Write ``elsewhere.json``."""
    path = build / "elsewhere.json"
    if path.exists():
        return
    datasets = {fleet: load_fleet_dataset(build, fleet)[0] for fleet in ("b", "c", "d", "e", "f")}
    dataset, recipes = datasets[HOME_FLEET], ChosenRecipes.load(build, HOME_FLEET)
    fitted = fit(dataset, dataset.rows(*FINAL_SPLITS), recipes.experts[OURS])
    results: dict[str, dict[str, Metric]] = {"the tree's own": evaluate_expert(fitted, datasets[HOME_FLEET])}
    results |= {name: evaluate_expert(fitted, datasets[fleet]) for name, fleet in OTHER_FLEETS.items()}
    results["whole models, by their difference to the base"] = evaluate_full_models(build, fitted, dataset)
    document = {name: {metric: asdict(value) for metric, value in metrics.items()} for name, metrics in results.items()}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(document | {"routing": measure_routing(datasets)}, indent=1))
    log.info(
        "elsewhere: %s",
        json.dumps(
            {
                name: {metric: round(100 * value.value, 1) for metric, value in metrics.items()}
                for name, metrics in results.items()
            }
        ),
    )


def evaluate_expert(fitted: FittedModel, dataset: ConceptDataset) -> dict[str, Metric]:
    """Metrics of an expert on the held-out concepts of a fleet."""
    rows = dataset.rows(HELD_OUT)
    scores = fitted.scores(dataset.take(rows, fitted.model.config.layers))
    return Gallery(dataset.concept_split, dataset.concept[rows].numpy(), dataset.split[rows.numpy()]).ranking_metrics(
        scores
    )


def evaluate_full_models(build: Build, fitted: FittedModel, dataset: ConceptDataset) -> dict[str, Metric]:
    """Metrics of an expert on full models of held-out concepts, and their distances to each base model."""
    base = build / f"tree-{HOME_FLEET}" / "unet" / "diffusion_pytorch_model.safetensors"
    full_models = [
        FullModel.open(path, base, f"mini-{HOME_FLEET}")
        for path in sorted((build / "whole" / HELD_OUT).glob("*/*.safetensors"))
    ]
    layers = fitted.model.config.layers
    models = stack_layers([model.updates(layers) for model in full_models], layers)
    concept = np.array([dataset.names.index(model.header.metadata["class_name"]) for model in full_models])
    metrics = Gallery(dataset.concept_split, concept, np.array([HELD_OUT] * len(full_models))).ranking_metrics(
        fitted.scores(models)
    )
    distances = np.array([model.distance(layers[:4]) for model in full_models])
    metrics["distance_to_the_base"] = bootstrap_mean(distances, concept, 0.0)
    for tree in TREES[1:]:
        other = build / f"tree-{tree}" / "unet" / "diffusion_pytorch_model.safetensors"
        distances = np.array(
            [FullModel.open(model.path, other, f"mini-{HOME_FLEET}").distance(layers[:4]) for model in full_models]
        )
        metrics[f"distance_to_{tree}"] = bootstrap_mean(distances, concept, 0.0)
    return metrics


def measure_routing(datasets: Mapping[str, ConceptDataset]) -> dict[str, Any]:
    """How often held-out LoRAs are routed to their own tree of three, and how well familiarity separates the trees."""
    familiarity_of = {tree: Familiarity.fit(datasets[tree].take(datasets[tree].rows(TRAINING))) for tree in TREES}
    scores = {tree: dict(familiarities(familiarity_of, datasets[tree])) for tree in TREES}
    concepts = {tree: datasets[tree].concept[datasets[tree].rows(HELD_OUT)].numpy() for tree in TREES}
    results: dict[str, Any] = {}
    for tree in TREES:
        by_expert = torch.stack([scores[tree][expert] for expert in TREES], 1)
        correct = (by_expert.argmax(1) == TREES.index(tree)).double().numpy()
        results[f"{tree}: routed to {tree} of {', '.join(TREES)}"] = asdict(
            bootstrap_mean(correct, concepts[tree], 1 / len(TREES))
        )
        for expert in TREES:
            familiarity = scores[tree][expert].double().numpy()
            results[f"{tree}: familiar to {expert}, mean"] = asdict(bootstrap_mean(familiarity, concepts[tree], 0.0))
            results[f"{tree}: taken by {expert} alone"] = asdict(
                bootstrap_mean((familiarity >= MIN_FAMILIARITY).astype(np.float64), concepts[tree], 0.0)
            )
    for tree in TREES:
        for other in TREES:
            if other != tree:
                results[f"{tree} told from {other} by {tree}'s familiarity, AUROC"] = asdict(
                    separation(scores[tree][tree], scores[other][tree], concepts[tree])
                )
    return results


def familiarities(familiarity_of: Mapping[str, Familiarity], dataset: ConceptDataset) -> Iterator[tuple[str, Tensor]]:
    """Yield each tree, and how familiar the held-out LoRAs of a fleet are to it."""
    models = dataset.take(dataset.rows(HELD_OUT))
    for tree, familiarity in familiarity_of.items():
        yield tree, familiarity.scores(models)


def separation(own_scores: Tensor, other_scores: Tensor, concepts: np.ndarray) -> Metric:
    """AUROC of own models against others, with an interval over the concepts of the own models."""
    positive, negative = own_scores.double().numpy(), other_scores.double().numpy()
    return bootstrap_statistic(lambda rows: auroc(positive[rows], negative), concepts, 0.5)
