"""Step ``final``: builds the space, and the experts and baselines of both shipped trees, with the chosen recipes."""

import json
from dataclasses import replace
from typing import Final

from loradex.app.paths import MINIATURE
from loradex.retrieval.measure.baselines import Baselines
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.labels import LabelList
from loradex.retrieval.training.build import build_expert
from loradex.retrieval.training.concept_dataset import FINAL_SPLITS, ConceptDataset
from scripts.miniature.fleet_dataset import load_fleet_dataset
from scripts.miniature.recipes import OURS, ChosenRecipes
from scripts.miniature.settings import TEMPLATES, Build, log, timed

# Of the shipped dense map, as of the experts; with 64 it differs on at most two models of a hundred.
BASELINE_RANK: Final = 40


def build_final_experts(build: Build) -> None:
    """Write ``space.safetensors``, ``labels.safetensors``, experts and baselines into app/miniature."""
    folder = MINIATURE / "encoder"
    with timed("final experts"):
        for fleet in ("a", "b"):
            dataset, text_centre, picture_centre = load_fleet_dataset(build, fleet)
            space = Space("local-dir:clip", TEMPLATES, text_centre, picture_centre)
            space.save(folder / "space.safetensors")
            LabelList(dataset.names, dataset.labels).save(folder / "labels.safetensors")
            build_tree_expert(dataset, space, f"mini-{fleet}", ChosenRecipes.load(build, fleet))
        concepts = json.loads((build / "concepts.json").read_text())
        log.info("space %s, %d labels", space.name, len(concepts))


def build_tree_expert(dataset: ConceptDataset, space: Space, tree: str, recipes: ChosenRecipes) -> None:
    """Fit an expert and its baselines on all LoRAs whose concepts are not held out, and write them."""
    expert, metrics = build_expert(dataset, recipes.experts[OURS], space, tree, tree)
    log.info(
        "%s: %s on validation concepts; temperature %.3f, unknown %.2f",
        tree,
        metrics,
        expert.calibration.temperature,
        expert.calibration.unknown,
    )
    expert = replace(expert, base=f"../trees/{tree}/unet/diffusion_pytorch_model.safetensors")
    expert.save(MINIATURE / "encoder" / "experts" / f"{tree}.safetensors")
    rows = dataset.rows(*FINAL_SPLITS)
    baselines = Baselines.fit(dataset.take(rows), dataset.targets[rows], *recipes.dense).truncate(BASELINE_RANK)
    baselines.save(MINIATURE / "baselines" / f"{tree}.safetensors")
