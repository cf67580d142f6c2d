"""Step 9: the space, and the experts and baselines of both trees with the recipes that won on validation concepts."""

import json
from dataclasses import replace
from typing import Final

from loradex.app.paths import MINIATURE
from loradex.retrieval.measure.baselines import Baselines
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.labels import LabelList
from loradex.retrieval.training.build import make_expert
from loradex.retrieval.training.concept_dataset import KNOWN, Study
from scripts.miniature.fleet_dataset import load_study
from scripts.miniature.recipes import OURS, Choice
from scripts.miniature.settings import TEMPLATES, Build, log, timed

RANK: Final = 40  # of the dense map that ships, as of the experts; 64 says the same within two models of a hundred


def build_final(build: Build) -> None:
    """Write ``space.safetensors``, ``labels.safetensors``, experts and baselines into app/miniature."""
    folder = MINIATURE / "encoder"
    with timed("final experts"):
        for fleet in ("a", "b"):
            study, centre, picture_centre = load_study(build, fleet)
            space = Space("local-dir:clip", TEMPLATES, centre, picture_centre)
            space.save(folder / "space.safetensors")
            LabelList(study.names, study.labels).save(folder / "labels.safetensors")
            build_tree(study, space, f"mini-{fleet}", Choice.load(build, fleet))
        names = json.loads((build / "concepts.json").read_text())
        log.info("space %s, %d labels", space.name, len(names))


def build_tree(study: Study, space: Space, tree: str, choice: Choice) -> None:
    """An expert and its baselines, fitted on every LoRA whose concept is not held out."""
    expert, validation = make_expert(study, choice.experts[OURS], space, tree, tree)
    log.info(
        "%s: %s on validation concepts; temperature %.3f, unknown %.2f",
        tree,
        validation,
        expert.calibration.temperature,
        expert.calibration.unknown,
    )
    expert = replace(expert, base=f"../trees/{tree}/unet/diffusion_pytorch_model.safetensors")
    expert.save(MINIATURE / "encoder" / "experts" / f"{tree}.safetensors")
    rows = study.rows(*KNOWN)
    baselines = Baselines.fit(study.take(rows), study.targets[rows], *choice.dense).cut(RANK)
    baselines.save(MINIATURE / "baselines" / f"{tree}.safetensors")
