"""Step 7: one change at a time, on validation concepts, over three seeds; every run is kept in ``ablation-<fleet>.jsonl``.

A seed draws some of the training LoRAs and, where an encoder starts at random, its start.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.probex.objective import ProbeTraining
from loradex.retrieval.probex.probes import ALL_VIEWS, ProbeConfig, View
from loradex.retrieval.probex.sketch import SketchConfig, SketchExpert
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.training.concept_dataset import TRAINING, VALIDATION, Aim, Study
from loradex.retrieval.training.fit import ExpertConfig, Fitted, fit, loradex, mvprobe, probex
from scripts.miniature.fleet_dataset import load_study
from scripts.miniature.settings import TEMPLATES, Build, log

SEEDS = (0, 1, 2)
SHARES = {"a": 0.5, "b": 0.9}  # of the training LoRAs: about one of each concept in both
LEARNED = ProbeTraining(epochs=45, lr=1e-3, temperature=0.05, check_every=3, patience=4)
PUBLISHED = {"check_every": 2, "patience": 5}  # the published recipes are over-trained within ten epochs here


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the ablation."""

    name: str
    config: ExpertConfig
    study: Callable[[Study], Study] = lambda study: study
    rows: Callable[[Study, Tensor], Tensor] = lambda study, rows: rows


def learned_cases(build: Build, ranked: Sequence[str]) -> Iterator[Case]:
    """What is trained by steps: the papers' encoders, and every change of learned probes."""
    yield Case("ProbeX as published", gentle(probex(ranked[0])))
    yield Case("MVProbe as published", gentle(mvprobe(ranked[0])))
    yield from probe_cases(build, ranked)


def gentle(config: ExpertConfig) -> ExpertConfig:
    """A published recipe, looked at often enough to stop in time."""
    return config.changed(**PUBLISHED)


def sketch_cases(layers: tuple[str, ...], ranked: Sequence[str]) -> Iterator[Case]:
    """Changes of the closed form."""
    base = loradex(layers)
    yield Case("closed form", base)
    yield Case("closed form: layers all alike", base.changed(weighted=False))
    yield Case("closed form: without the quadratic view", base.changed(quadratic=0.0))
    yield Case("closed form: neither weights nor quadratic view", base.changed(weighted=False, quadratic=0.0))
    yield Case("closed form: quadratic view at full weight", base.changed(quadratic=1.0))
    for size in (8, 16, 32):
        yield Case(f"closed form: {size} x {size}", base.changed(outputs=size, inputs=size))
    for ridge in (0.1, 1.0):
        yield Case(f"closed form: ridge {ridge}", base.changed(ridge=ridge))
    for rank in (16, 32, 192):
        yield Case(f"closed form: map of rank {rank}", base.changed(rank=rank))
    for count in (1, 4, 8, 16, 28, 40):
        yield Case(f"closed form: best {count} layers", base.changed(most_layers=count))
    for name in ("attn1", "attn2", "to_v", "to_out.0", "to_q", "to_k"):
        yield Case(f"closed form: {name} alone", base.changed(layers=tuple(layer for layer in layers if name in layer)))
    yield Case("closed form: aims at texts", base.changed(aim=Aim.LABELS))
    yield Case("closed form: labels by plain cosines", base.changed(against_background=False))
    yield Case("closed form: aims at texts, plain cosines", base.changed(aim=Aim.LABELS, against_background=False))
    yield Case("closed form: texts not centred", base, study=uncentred)
    yield Case("closed form: rank 2 alone in training", base, rows=lambda study, rows: rows[ranks(study)[rows] == 2])
    yield Case(
        "closed form: as many of mixed ranks",
        base,
        rows=lambda study, rows: rows[: int((ranks(study)[rows] == 2).sum())],
    )


def probe_cases(build: Build, ranked: Sequence[str]) -> Iterator[Case]:
    """Changes of learned probes over the eight best layers."""
    base = ExpertConfig(ProbeConfig(tuple(ranked[:8]), ALL_VIEWS, 32, 32, standardise=True, layer_dropout=0.3), LEARNED)

    yield Case("probes", base)
    for temperature in (0.02, 0.1, 0.3, 1.0):
        yield Case(f"probes: temperature {temperature}", base.changed(temperature=temperature))
    for lr in (3e-4, 3e-3):
        yield Case(f"probes: rate {lr}", base.changed(lr=lr))
    yield Case("probes: no early stop, 100 epochs", base.changed(epochs=100, check_every=100))
    yield Case("probes: responses not standardised", base.changed(standardise=False))
    for view in ALL_VIEWS:
        yield Case(f"probes: view {view} alone", base.changed(views=(view,)))
    yield Case("probes: linear views alone", base.changed(views=(View.XU, View.XTU)))
    yield Case("probes: quadratic views alone", base.changed(views=(View.XXTU, View.XTXU)))
    yield Case("probes: symmetric loss", base.changed(symmetric=True))
    yield Case("probes: label smoothing 0.1", base.changed(label_smoothing=0.1))
    yield Case("probes: aim at texts", base.changed(aim=Aim.LABELS))
    yield Case("probes: aim at captions, one of five a step", base, study=lambda study: captioned(build, study))
    yield Case("probes: aim at CLIP's texts through a learned projection", base.changed(aim=Aim.CLIP_TEXTS))
    yield Case("probes: texts not centred", base.changed(aim=Aim.LABELS), study=uncentred)
    yield Case("probes: labels by plain cosines", base.changed(against_background=False))
    yield Case("probes: no layer dropout", base.changed(layer_dropout=0.0))
    for count in (1, 28):
        yield Case(f"probes: best {count} layers", base.changed(layers=tuple(ranked[:count])))
    for count in (16, 64):
        yield Case(f"probes: {count} a view", base.changed(probes=count, projection=count))


def ranks(study: Study) -> Tensor:
    """The rank (models,) of each LoRA."""
    first = next(iter(study.models.values()))
    return (first.down.abs().sum(2) > 0).sum(1)


def uncentred(study: Study) -> Study:
    """Texts and labels as CLIP has them."""
    return replace(study, labels=study.texts)


def captioned(build: Build, study: Study) -> Study:
    """Each concept's name in each template as its anchors, centred as labels are."""
    encoders = [TextEncoder.load(f"local-dir:{build / 'clip'}", (template,)) for template in TEMPLATES]
    vectors = torch.stack([encoder.encode(study.names) for encoder in encoders], 1)
    centre = vectors[study.candidates("train")].mean((0, 1))
    return replace(study, anchors=torch.nn.functional.normalize(vectors - centre, dim=-1))


class Runs:
    """Results by name and seed, each measured once and kept."""

    def __init__(self, path: Path) -> None:
        """Read those made before."""
        self.path = path
        self.made: dict[tuple[str, int], dict[str, float]] = {}
        if path.exists():
            self.made = {
                (row.pop("name"), row.pop("seed")): row for row in map(json.loads, path.read_text().splitlines())
            }

    def once(self, name: str, seed: int, work: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The result of some work, done if it is not known."""
        if (name, seed) not in self.made:
            row = {key: round(value, 4) for key, value in work().items()}
            self.made[name, seed] = row
            with self.path.open("a") as file:
                file.write(json.dumps({"name": name, "seed": seed} | row) + "\n")
            log.info("%s, seed %d: %s", name, seed, row)
        return self.made[name, seed]


def some_rows(study: Study, seed: int, share: float, *splits: str) -> Tensor:
    """A share of the models of some splits."""
    rows = study.rows(*splits)
    return rows[np.random.default_rng(seed).permutation(len(rows))[: round(share * len(rows))]]


def ranked_layers(study: Study) -> list[str]:
    """All layers, the best aligned with the drawings of training concepts first."""
    rows = study.rows(TRAINING)
    expert = SketchExpert.fit(
        study.take(rows), study.targets[rows], study.concept[rows], SketchConfig(tuple(study.models))
    )
    return sorted(expert.alignment, key=lambda layer: -expert.alignment[layer])


def run_ablation(build: Build, fleet: str) -> None:
    """Every case and seed of one fleet, each layer alone, and the ensemble of the two kinds."""
    study, runs = load_study(build, fleet)[0], Runs(build / f"ablation-{fleet}.jsonl")
    trials = Trials(study, study.rows(VALIDATION), SHARES[fleet])
    ranked = ranked_layers(study)
    closed = list(sketch_cases(tuple(study.models), ranked))
    alone = [Case(f"closed form: {layer} alone", loradex((layer,))) for layer in ranked]
    learned = list(learned_cases(build, ranked))
    named = {case.name: case for case in (*closed, *learned)}
    parts = named["closed form"], named["probes: best 28 layers"]
    for some, seeds in (closed, SEEDS), (alone, SEEDS[:1]), (learned, SEEDS):
        for seed in seeds:
            for case in some:
                runs.once(case.name, seed, lambda case=case, seed=seed: trials.measured(case, seed))  # type: ignore[misc]
    for seed in SEEDS:
        runs.once("closed form and probes, averaged", seed, lambda seed=seed: trials.ensemble(parts, seed))  # type: ignore[misc]


@dataclass(frozen=True, slots=True)
class Trials:
    """Where the cases of one fleet are measured."""

    study: Study
    validation: Tensor
    share: float

    def measured(self, case: Case, seed: int) -> dict[str, float]:
        """The result of one case and seed, with the best epoch of probes."""
        fitted, epochs = self.fitted(case, seed)
        return self.study.brief(self.scores(fitted), self.validation) | epochs

    def fitted(self, case: Case, seed: int) -> tuple[Fitted, dict[str, float]]:
        """The encoder of one case and seed."""
        changed, looks = case.study(self.study), dict[int, float]()
        rows = case.rows(self.study, some_rows(self.study, seed, self.share, TRAINING))
        fitted = fit(
            changed, rows, case.config.changed(seed=seed), lambda epoch, score: looks.__setitem__(epoch, score)
        )
        return fitted, {"epochs": max(looks, key=lambda epoch: looks[epoch])} if looks else {}

    def ensemble(self, parts: Sequence[Case], seed: int) -> dict[str, float]:
        """Mean scores of several encoders."""
        fitted = [self.fitted(part, seed)[0] for part in parts]
        return self.study.brief(torch.stack([self.scores(part) for part in fitted]).mean(0), self.validation)

    def scores(self, fitted: Fitted) -> Tensor:
        """Scores of the validation models."""
        return fitted.scores(self.study.take(self.validation, fitted.model.config.layers))
