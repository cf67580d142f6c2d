"""Step 8: the space, and the experts and baselines of both trees with the settings that won on validation concepts."""

import json
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from app.places import MINIATURE
from retrieval.baselines import DenseLinear, WeightStatistics, save_baselines
from retrieval.label import LabelList
from retrieval.probex.expert import Expert
from retrieval.probex.sketch import SketchConfig, SketchExpert
from retrieval.space import Space
from scripts.miniature.experts import Trials, sketch_configs
from scripts.miniature.settings import TEMPLATES, Build, log, timed
from scripts.miniature.study import Study

ALL_BUT_HELD_OUT = ("train", "val", "val_holdout")
REFUSED_SHARE = 0.05  # of models of known concepts, by the threshold for "unknown"


def best_sketch(trials: Trials) -> SketchConfig:
    """The setting with the best merit on validation concepts."""
    return max(sketch_configs(list(trials.train)), key=lambda named: trials.sketch(named[1], named[0]))[1]


def best_dense(trials: Trials) -> tuple[str, float]:
    """The layer and penalty of the dense linear baseline, chosen alike."""
    layers = sorted(trials.train, key=lambda layer: -trials.dense(layer, 0.1))[:4]
    return max(((layer, ridge) for layer in layers for ridge in (0.01, 0.03, 0.1, 0.3, 1.0)), key=lambda pair: trials.dense(*pair))


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
        chosen = {fleet: best_sketch(trial) for fleet, trial in trials.items()}
        dense = {fleet: best_dense(trial) for fleet, trial in trials.items()}
        (build / "chosen.json").write_text(json.dumps({fleet: [asdict(chosen[fleet]), *dense[fleet]] for fleet in trials}, indent=1))
        cosines = torch.cat([SketchExpert.fit(t.train, t.targets, chosen[f]).encode(t.validation) @ t.placed.T for f, t in trials.items()])
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
            fit_tree(trial.study, space, f"mini-{fleet}", chosen[fleet], dense[fleet])


def fit_tree(study: Study, space: Space, tree: str, config: SketchConfig, dense: tuple[str, float]) -> None:
    """An expert and its baselines, fitted on every LoRA whose concept is not held out."""
    rows = study.rows(*ALL_BUT_HELD_OUT)
    models, targets = study.take(rows), space.place(study.texts)[study.concept[rows]]
    shapes = {layer: (factors.up.shape[1], factors.down.shape[2]) for layer, factors in models.items() if layer in config.layers}
    expert = Expert(tree, space.name, shapes, SketchExpert.fit(models, targets, config))
    expert.save(MINIATURE / "encoder" / "experts" / f"{tree}.safetensors")
    baselines = DenseLinear.fit(models, targets, *dense), WeightStatistics.fit(models, targets)
    save_baselines(MINIATURE / "baselines" / f"{tree}.safetensors", *baselines)
