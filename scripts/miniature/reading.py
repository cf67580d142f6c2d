"""Step 9: the one look at held-out concepts: every encoder with its chosen settings, over three seeds.

A seed draws nine tenths of the training LoRAs and, where an encoder starts at random, its start.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from app.places import MINIATURE
from retrieval.baselines import DenseLinear, WeightStatistics
from retrieval.gallery import HELD_OUT, SEEN, Gallery
from retrieval.probex.sketch import SketchExpert, widen
from retrieval.probex.train import train_probex
from retrieval.space import Space
from scripts.miniature.experts import Choice
from scripts.miniature.settings import Build, atomic, log
from scripts.miniature.study import ALL_BUT_HELD_OUT, Study

SEEDS = (0, 1, 2)
SHARE = 0.9

Encoded = tuple[Tensor, Tensor]  # vectors of the tested models, and the texts of all concepts to compare them with


def read_held_out(build: Build, fleet: str) -> None:
    """Write ``reading-<fleet>.json``: the metrics of every encoder and seed."""
    path = build / f"reading-{fleet}.json"
    if path.exists():
        return
    study, choice = Study.load(build, fleet), Choice.load(build, fleet)
    tested, placed = study.rows(SEEN, HELD_OUT), Space.load(MINIATURE / "encoder/space.safetensors").place(study.texts)
    gallery = Gallery(placed, study.concept_split, study.concept[tested].numpy(), study.split[tested])
    read = []
    for seed in SEEDS:
        for name, (vectors, texts) in encoders(study, choice, placed, tested, seed):
            metrics = {metric: asdict(found) for metric, found in gallery.metrics(vectors, texts).items()}
            read.append({"encoder": name, "seed": seed, "metrics": metrics})
            log.info("held out, fleet %s, seed %d, %s: %s", fleet, seed, name, {metric: round(100 * found["value"], 1) for metric, found in metrics.items()})
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(read, indent=1))


def encoders(study: Study, choice: Choice, placed: Tensor, tested: Tensor, seed: int) -> Iterator[tuple[str, Encoded]]:
    """What each encoder, fitted on LoRAs of all concepts but the held-out ones, makes of the tested models."""
    known, models = study.rows(*ALL_BUT_HELD_OUT), study.take(tested)
    rows = known[np.random.default_rng(seed).permutation(len(known))[: round(SHARE * len(known))]]
    train, targets = study.take(rows), placed[study.concept[rows]]
    yield "weight statistics", (WeightStatistics.fit(train, targets, seed=seed).encode(models), placed)
    yield "dense linear", (DenseLinear.fit(train, targets, *choice.dense).encode(models), placed)
    yield "closed form", (SketchExpert.fit(train, targets, choice.sketch).encode(models), placed)
    classes, concepts = study.concept[rows].unique(return_inverse=True)
    for name, (config, training) in choice.probex.items():
        probex = train_probex(train, concepts, study.texts[classes], config, replace(training, seed=seed))
        with torch.inference_mode():
            yield name, (probex.encode({layer: widen(models[layer]) for layer in config.layers}), probex.encode_text(study.texts))
