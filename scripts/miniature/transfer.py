"""Step 12: models from elsewhere: of other trainers, of other trees of the same structure, and whole models; read once, with the recipe that was chosen."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.lora import WholeModel
from loradex.retrieval.measure.gallery import Gallery
from loradex.retrieval.measure.metrics import Metric, auroc, bootstrapped, summarise
from loradex.retrieval.probex.batched_factors import stack_layers
from loradex.retrieval.probex.familiarity import FAMILIAR, Familiarity
from loradex.retrieval.training.concept_dataset import HELD_OUT, KNOWN, TRAINING, Study
from loradex.retrieval.training.fit import Fitted, fit
from scripts.miniature.fleet_dataset import load_study
from scripts.miniature.recipes import OURS, Choice
from scripts.miniature.settings import Build, atomic, log

HOME = "b"
TREES = ("b", "c", "d")  # of one structure; d is b trained further
OTHERS = {
    "another trainer, rank 16, same prompt": "f",
    "another trainer, rank 16, prompts that name the concept": "e",
    "child of the tree (d)": "d",
    "stranger of the same structure (c)": "c",
}


def read_elsewhere(build: Build) -> None:
    """Write ``elsewhere.json``."""
    path = build / "elsewhere.json"
    if path.exists():
        return
    studies = {fleet: load_study(build, fleet)[0] for fleet in ("b", "c", "d", "e", "f")}
    study, choice = studies[HOME], Choice.load(build, HOME)
    fitted = fit(study, study.rows(*KNOWN), choice.experts[OURS])
    found: dict[str, dict[str, Metric]] = {"the tree's own": metrics_of(fitted, studies[HOME])}
    found |= {name: metrics_of(fitted, studies[fleet]) for name, fleet in OTHERS.items()}
    found["whole models, by their difference to the base"] = read_whole(build, fitted, study)
    document = {name: {metric: asdict(value) for metric, value in metrics.items()} for name, metrics in found.items()}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(document | {"routing": routing(studies)}, indent=1))
    log.info(
        "elsewhere: %s",
        json.dumps(
            {
                name: {metric: round(100 * value.value, 1) for metric, value in metrics.items()}
                for name, metrics in found.items()
            }
        ),
    )


def metrics_of(fitted: Fitted, study: Study) -> dict[str, Metric]:
    """What one tree's expert says of the held-out concepts of a fleet."""
    rows = study.rows(HELD_OUT)
    scores = fitted.scores(study.take(rows, fitted.model.config.layers))
    return Gallery(study.concept_split, study.concept[rows].numpy(), study.split[rows.numpy()]).metrics(scores)


def read_whole(build: Build, fitted: Fitted, study: Study) -> dict[str, Metric]:
    """What it says of whole models of held-out concepts."""
    base = build / f"tree-{HOME}" / "unet" / "diffusion_pytorch_model.safetensors"
    whole = [
        WholeModel.open(path, base, f"mini-{HOME}")
        for path in sorted((build / "whole" / HELD_OUT).glob("*/*.safetensors"))
    ]
    layers = fitted.model.config.layers
    models = stack_layers([model.updates(layers) for model in whole], layers)
    concept = np.array([study.names.index(model.header.metadata["class_name"]) for model in whole])
    metrics = Gallery(study.concept_split, concept, np.array([HELD_OUT] * len(whole))).metrics(fitted.scores(models))
    away = np.array([model.distance(layers[:4]) for model in whole])
    metrics["distance_to_the_base"] = summarise(away, concept, 0.0)
    for tree in TREES[1:]:
        other = build / f"tree-{tree}" / "unet" / "diffusion_pytorch_model.safetensors"
        away = np.array([WholeModel.open(model.path, other, f"mini-{HOME}").distance(layers[:4]) for model in whole])
        metrics[f"distance_to_{tree}"] = summarise(away, concept, 0.0)
    return metrics


def routing(studies: Mapping[str, Study]) -> dict[str, Any]:
    """How often held-out LoRAs go to their own tree of three, and how well familiarity tells the own from each other tree."""
    known = {tree: Familiarity.of(studies[tree].take(studies[tree].rows(TRAINING))) for tree in TREES}
    said = {tree: dict(familiarities(known, studies[tree])) for tree in TREES}
    concepts = {tree: studies[tree].concept[studies[tree].rows(HELD_OUT)].numpy() for tree in TREES}
    found: dict[str, Any] = {}
    for tree in TREES:
        table = torch.stack([said[tree][expert] for expert in TREES], 1)
        right = (table.argmax(1) == TREES.index(tree)).double().numpy()
        found[f"{tree}: routed to {tree} of {', '.join(TREES)}"] = asdict(
            summarise(right, concepts[tree], 1 / len(TREES))
        )
        for expert in TREES:
            seen = said[tree][expert].double().numpy()
            found[f"{tree}: familiar to {expert}, mean"] = asdict(summarise(seen, concepts[tree], 0.0))
            found[f"{tree}: taken by {expert} alone"] = asdict(
                summarise((seen >= FAMILIAR).astype(np.float64), concepts[tree], 0.0)
            )
    for tree in TREES:
        for other in TREES:
            if other != tree:
                found[f"{tree} told from {other} by {tree}'s familiarity, AUROC"] = asdict(
                    told_apart(said[tree][tree], said[other][tree], concepts[tree])
                )
    return found


def familiarities(known: Mapping[str, Familiarity], study: Study) -> Iterator[tuple[str, Tensor]]:
    """How familiar the held-out LoRAs of a fleet are to each tree."""
    models = study.take(study.rows(HELD_OUT))
    for tree, familiarity in known.items():
        yield tree, familiarity.of_models(models)


def told_apart(own: Tensor, others: Tensor, concepts: np.ndarray) -> Metric:
    """AUROC, with an interval over the concepts of the own models."""
    positive, negative = own.double().numpy(), others.double().numpy()
    return bootstrapped(lambda rows: auroc(positive[rows], negative), concepts, 0.5)
