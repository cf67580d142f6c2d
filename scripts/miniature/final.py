"""Step 8: the space, and the experts and baselines of both trees with the settings that won on validation concepts."""

import json

import numpy as np
import torch
from torch import Tensor

from app.places import MINIATURE
from retrieval.baselines import DenseLinear, WeightStatistics, save_baselines
from retrieval.label import LabelList
from retrieval.probex.expert import Expert
from retrieval.probex.sketch import SketchExpert
from retrieval.space import Space
from scripts.miniature.experts import Choice, Trials
from scripts.miniature.settings import TEMPLATES, Build, log, timed
from scripts.miniature.study import ALL_BUT_HELD_OUT, Study

REFUSED_SHARE = 0.05  # of models of known concepts, by the threshold for "unknown"


def calibrate(cosines: Tensor, truth: Tensor) -> tuple[float, float]:
    """The temperature with the least cross-entropy, and the threshold under which ``REFUSED_SHARE`` of best cosines lie."""
    temperatures = np.geomspace(0.005, 0.5, 200)
    losses = [float(torch.nn.functional.cross_entropy(cosines / temperature, truth)) for temperature in temperatures]
    return float(temperatures[int(np.argmin(losses))]), float(cosines.max(1).values.quantile(REFUSED_SHARE))


def build_final(build: Build) -> None:
    """Write ``space.safetensors``, ``labels.safetensors``, experts and baselines into app/miniature."""
    encoder = MINIATURE / "encoder"
    with timed("final experts"):
        trials = {fleet: Trials(build, fleet) for fleet in ("a", "b")}
        chosen = {fleet: Choice.load(build, fleet) for fleet in trials}
        cosines = torch.cat([SketchExpert.fit(t.train, t.targets, chosen[f].sketch).encode(t.validation) @ t.placed.T for f, t in trials.items()])
        truth = torch.cat([t.study.concept[t.study.rows("val_holdout")] for t in trials.values()])
        temperature, unknown_below = calibrate(cosines, truth)
        study = trials["a"].study
        centre = study.texts[study.candidates("train")].mean(0)
        space = Space("local-dir:clip", TEMPLATES, centre, temperature, unknown_below)
        space.save(encoder / "space.safetensors")
        names = tuple(concept["label"] for concept in json.loads((build / "concepts.json").read_text()))
        LabelList(names, space.place(study.texts)).save(encoder / "labels.safetensors")
        log.info("space %s: temperature %.4f, unknown below %.3f", space.name, temperature, unknown_below)
        for fleet, trial in trials.items():
            fit_tree(trial.study, space, f"mini-{fleet}", chosen[fleet])


def fit_tree(study: Study, space: Space, tree: str, choice: Choice) -> None:
    """An expert and its baselines, fitted on every LoRA whose concept is not held out."""
    rows = study.rows(*ALL_BUT_HELD_OUT)
    models, targets = study.take(rows), space.place(study.texts)[study.concept[rows]]
    shapes = {layer: (factors.up.shape[1], factors.down.shape[2]) for layer, factors in models.items() if layer in choice.sketch.layers}
    expert = Expert(tree, space.name, shapes, SketchExpert.fit(models, targets, choice.sketch))
    expert.save(MINIATURE / "encoder" / "experts" / f"{tree}.safetensors")
    baselines = DenseLinear.fit(models, targets, *choice.dense), WeightStatistics.fit(models, targets)
    save_baselines(MINIATURE / "baselines" / f"{tree}.safetensors", *baselines)
