"""Step 8: the space, and the experts and baselines of both trees with the settings that won on validation concepts."""

import json

import numpy as np
import torch

from app.places import MINIATURE
from retrieval.baselines import Baselines
from retrieval.label import LabelList
from retrieval.probex.expert import Expert
from retrieval.probex.sketch import SketchExpert
from retrieval.space import Background, Space
from scripts.miniature.experts import Choice
from scripts.miniature.settings import TEMPLATES, Build, log, timed
from scripts.miniature.study import ALL_BUT_HELD_OUT, Study

REFUSED_SHARE = 0.05  # of models of known concepts, by the threshold for "unknown"


def build_final(build: Build) -> None:
    """Write ``space.safetensors``, ``labels.safetensors``, experts and baselines into app/miniature."""
    encoder = MINIATURE / "encoder"
    with timed("final experts"):
        studies = {fleet: Study.load(build, fleet) for fleet in ("a", "b")}
        chosen = {fleet: Choice.load(build, fleet) for fleet in studies}
        study = studies["a"]
        background, temperature, unknown_below = calibrate(studies, chosen)
        space = Space("local-dir:clip", TEMPLATES, study.centre, study.picture_centre, background, temperature, unknown_below)
        space.save(encoder / "space.safetensors")
        names = tuple(concept["label"] for concept in json.loads((build / "concepts.json").read_text()))
        LabelList(names, study.labels).save(encoder / "labels.safetensors")
        log.info("space %s: temperature %.4f, unknown below %.3f", space.name, temperature, unknown_below)
        for fleet, fitted_on in studies.items():
            fit_tree(fitted_on, space, f"mini-{fleet}", chosen[fleet])


def calibrate(studies: dict[str, Study], chosen: dict[str, Choice]) -> tuple[Background, float, float]:
    """Background, temperature and threshold from experts that never saw the validation concepts.

    The temperature is the one with the least cross-entropy on models of validation concepts; ``REFUSED_SHARE`` of their best scores lie below the threshold.
    """
    known, unknown, truth = [], [], []
    for fleet, study in studies.items():
        train, validation = study.rows("train"), study.rows("val_holdout")
        expert = SketchExpert.fit(study.take(train), study.targets[train], chosen[fleet].sketch)
        known.append(expert.encode(study.take(train)))
        unknown.append(expert.encode(study.take(validation)))
        truth.append(study.concept[validation])
    background = Background.of(torch.cat(known))
    scores = background.standardise(torch.cat(unknown), studies["a"].labels)
    temperatures = np.geomspace(0.1, 10, 200)
    losses = [float(torch.nn.functional.cross_entropy(scores / temperature, torch.cat(truth))) for temperature in temperatures]
    return background, float(temperatures[int(np.argmin(losses))]), float(scores.max(1).values.quantile(REFUSED_SHARE))


def fit_tree(study: Study, space: Space, tree: str, choice: Choice) -> None:
    """An expert and its baselines, fitted on every LoRA whose concept is not held out."""
    rows = study.rows(*ALL_BUT_HELD_OUT)
    models, targets = study.take(rows), study.targets[rows]
    shapes = {layer: (factors.up.shape[1], factors.down.shape[2]) for layer, factors in models.items() if layer in choice.sketch.layers}
    expert = Expert(tree, space.name, shapes, SketchExpert.fit(models, targets, choice.sketch))
    expert.save(MINIATURE / "encoder" / "experts" / f"{tree}.safetensors")
    Baselines.fit(models, targets, *choice.dense).save(MINIATURE / "baselines" / f"{tree}.safetensors")
