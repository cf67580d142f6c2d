"""Step 9: the one look at held-out concepts: every encoder with its chosen settings, over three seeds.

A seed draws nine tenths of the training LoRAs and, where an encoder starts at random, its start.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from retrieval.baselines import DenseLinear, WeightStatistics
from retrieval.gallery import HELD_OUT, SEEN, Gallery
from retrieval.probex.sketch import SketchExpert, widen
from retrieval.probex.train import train_probex
from retrieval.space import Background
from scripts.miniature.experts import Choice, Fitted
from scripts.miniature.settings import Build, atomic, log
from scripts.miniature.study import ALL_BUT_HELD_OUT, Study

SEEDS = (0, 1, 2)
SHARE = 0.9


def read_held_out(build: Build, fleet: str) -> None:
    """Write ``reading-<fleet>.json``: the metrics of every encoder and seed."""
    path = build / f"reading-{fleet}.json"
    if path.exists():
        return
    study, choice = Study.load(build, fleet), Choice.load(build, fleet)
    tested = study.rows(SEEN, HELD_OUT)
    gallery = Gallery(study.concept_split, study.concept[tested].numpy(), study.split[tested])
    read = []
    for seed in SEEDS:
        for name, scores in encoders(study, choice, tested, seed):
            metrics = {metric: asdict(found) for metric, found in gallery.metrics(scores).items()}
            read.append({"encoder": name, "seed": seed, "metrics": metrics})
            log.info("held out, fleet %s, seed %d, %s: %s", fleet, seed, name, {metric: round(100 * found["value"], 1) for metric, found in metrics.items()})
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(read, indent=1))


def encoders(study: Study, choice: Choice, tested: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Scores (tested models, concepts) by each encoder, fitted on LoRAs of all concepts but the held-out ones."""
    known, models = study.rows(*ALL_BUT_HELD_OUT), study.take(tested)
    rows = known[np.random.default_rng(seed).permutation(len(known))[: round(SHARE * len(known))]]
    train, targets = study.take(rows), study.targets[rows]
    fitted: dict[str, Fitted] = {
        "weight statistics": WeightStatistics.fit(train, targets, seed=seed),
        "dense linear": DenseLinear.fit(train, targets, *choice.dense),
        "closed form": SketchExpert.fit(train, targets, choice.sketch),
    }
    for name, encoder in fitted.items():
        yield name, Background.of(encoder.encode(train)).standardise(encoder.encode(models), study.labels)
    classes, concepts = study.concept[rows].unique(return_inverse=True)
    for name, (config, training) in choice.probex.items():
        probex = train_probex(train, concepts, study.texts[classes], config, replace(training, seed=seed))
        with torch.inference_mode():
            yield name, probex.encode({layer: widen(models[layer]) for layer in config.layers}) @ probex.encode_text(study.texts).T
