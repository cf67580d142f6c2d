"""Steps ``ablation-a`` and ``ablation-b``: measure changes of single settings on validation concepts, over three seeds.

A seed draws some of the training LoRAs and initialises encoders that start at random. Every result is kept in
``ablation-<fleet>.jsonl``.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.probex.objective import ProbeTraining
from loradex.retrieval.probex.probes import ALL_VIEWS, ProbeConfig, View
from loradex.retrieval.probex.sketch import SketchConfig, SketchRegression
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.training.concept_dataset import TRAINING, VALIDATION, ConceptDataset
from loradex.retrieval.training.dataset import Aim
from loradex.retrieval.training.expert_config import ExpertConfig, loradex_config, mvprobe_config, probex_config
from loradex.retrieval.training.fit import FittedModel, fit
from scripts.miniature.fleet_dataset import load_fleet_dataset
from scripts.miniature.settings import TEMPLATES, Build, log

SEEDS = (0, 1, 2)
TRAINING_SHARES = {"a": 0.5, "b": 0.9}  # of the training LoRAs: about one LoRA of each concept in both fleets
PROBE_TRAINING = ProbeTraining(epochs=45, lr=1e-3, temperature=0.05, check_every=3, patience=4)
FREQUENT_CHECKS = {"check_every": 2, "patience": 5}  # the published recipes overfit within ten epochs here


@dataclass(frozen=True, slots=True)
class AblationCase:
    """One line of the ablation: the settings, and how they change the dataset or the training rows."""

    name: str
    config: ExpertConfig
    change_dataset: Callable[[ConceptDataset], ConceptDataset] = lambda dataset: dataset
    select_rows: Callable[[ConceptDataset, Tensor], Tensor] = lambda dataset, rows: rows


def trained_cases(build: Build, ranked: Sequence[str]) -> Iterator[AblationCase]:
    """Cases that are trained in steps: the papers' encoders, and changes of learned probes."""
    yield AblationCase("ProbeX as published", with_frequent_checks(probex_config(ranked[0])))
    yield AblationCase("MVProbe as published", with_frequent_checks(mvprobe_config(ranked[0])))
    yield from probe_cases(build, ranked)


def with_frequent_checks(config: ExpertConfig) -> ExpertConfig:
    """A published recipe with checks frequent enough to stop in time."""
    return config.with_settings(**FREQUENT_CHECKS)


def closed_form_cases(layers: tuple[str, ...], ranked: Sequence[str]) -> Iterator[AblationCase]:
    """Changes of the closed form."""
    base = loradex_config(layers)
    yield AblationCase("closed form", base)
    yield AblationCase("closed form: layers all alike", base.with_settings(weighted=False))
    yield AblationCase("closed form: without the quadratic view", base.with_settings(quadratic=0.0))
    yield AblationCase(
        "closed form: neither weights nor quadratic view", base.with_settings(weighted=False, quadratic=0.0)
    )
    yield AblationCase("closed form: quadratic view at full weight", base.with_settings(quadratic=1.0))
    for size in (8, 16, 32):
        yield AblationCase(f"closed form: {size} x {size}", base.with_settings(outputs=size, inputs=size))
    for ridge in (0.1, 1.0):
        yield AblationCase(f"closed form: ridge {ridge}", base.with_settings(ridge=ridge))
    for rank in (16, 32, 192):
        yield AblationCase(f"closed form: map of rank {rank}", base.with_settings(rank=rank))
    for count in (1, 4, 8, 16, 28, 40):
        yield AblationCase(f"closed form: best {count} layers", base.with_settings(most_layers=count))
    for name in ("attn1", "attn2", "to_v", "to_out.0", "to_q", "to_k"):
        yield AblationCase(
            f"closed form: {name} alone", base.with_settings(layers=tuple(layer for layer in layers if name in layer))
        )
    yield AblationCase("closed form: aims at texts", base.with_settings(aim=Aim.LABELS))
    yield AblationCase("closed form: labels by plain cosines", base.with_settings(against_background=False))
    yield AblationCase(
        "closed form: aims at texts, plain cosines", base.with_settings(aim=Aim.LABELS, against_background=False)
    )
    yield AblationCase("closed form: texts not centred", base, change_dataset=without_centring)
    yield AblationCase(
        "closed form: rank 2 alone in training",
        base,
        select_rows=lambda dataset, rows: rows[lora_ranks(dataset)[rows] == 2],
    )
    yield AblationCase(
        "closed form: as many of mixed ranks",
        base,
        select_rows=lambda dataset, rows: rows[: int((lora_ranks(dataset)[rows] == 2).sum())],
    )


def probe_cases(build: Build, ranked: Sequence[str]) -> Iterator[AblationCase]:
    """Changes of learned probes over the eight best layers."""
    base = ExpertConfig(
        ProbeConfig(tuple(ranked[:8]), ALL_VIEWS, 32, 32, standardise=True, layer_dropout=0.3), PROBE_TRAINING
    )

    yield AblationCase("probes", base)
    for temperature in (0.02, 0.1, 0.3, 1.0):
        yield AblationCase(f"probes: temperature {temperature}", base.with_settings(temperature=temperature))
    for lr in (3e-4, 3e-3):
        yield AblationCase(f"probes: rate {lr}", base.with_settings(lr=lr))
    yield AblationCase("probes: no early stop, 100 epochs", base.with_settings(epochs=100, check_every=100))
    yield AblationCase("probes: responses not standardised", base.with_settings(standardise=False))
    for view in ALL_VIEWS:
        yield AblationCase(f"probes: view {view} alone", base.with_settings(views=(view,)))
    yield AblationCase("probes: linear views alone", base.with_settings(views=(View.XU, View.XTU)))
    yield AblationCase("probes: quadratic views alone", base.with_settings(views=(View.XXTU, View.XTXU)))
    yield AblationCase("probes: symmetric loss", base.with_settings(symmetric=True))
    yield AblationCase("probes: label smoothing 0.1", base.with_settings(label_smoothing=0.1))
    yield AblationCase("probes: aim at texts", base.with_settings(aim=Aim.LABELS))
    yield AblationCase(
        "probes: aim at captions, one of five a step",
        base,
        change_dataset=lambda dataset: with_caption_anchors(build, dataset),
    )
    yield AblationCase(
        "probes: aim at CLIP's texts through a learned projection", base.with_settings(aim=Aim.CLIP_TEXTS)
    )
    yield AblationCase("probes: texts not centred", base.with_settings(aim=Aim.LABELS), change_dataset=without_centring)
    yield AblationCase("probes: labels by plain cosines", base.with_settings(against_background=False))
    yield AblationCase("probes: no layer dropout", base.with_settings(layer_dropout=0.0))
    for count in (1, 28):
        yield AblationCase(f"probes: best {count} layers", base.with_settings(layers=tuple(ranked[:count])))
    for count in (16, 64):
        yield AblationCase(f"probes: {count} a view", base.with_settings(probes=count, projection=count))


def lora_ranks(dataset: ConceptDataset) -> Tensor:
    """The rank (models,) of each LoRA."""
    first = next(iter(dataset.models.values()))
    return (first.down.abs().sum(2) > 0).sum(1)


def without_centring(dataset: ConceptDataset) -> ConceptDataset:
    """A dataset whose labels are CLIP's texts, not centred."""
    return replace(dataset, labels=dataset.texts)


def with_caption_anchors(build: Build, dataset: ConceptDataset) -> ConceptDataset:
    """A dataset whose anchors are each concept's name in each template, centred like labels."""
    encoders = [TextEncoder.load(f"local-dir:{build / 'clip'}", (template,)) for template in TEMPLATES]
    vectors = torch.stack([encoder.encode(dataset.names) for encoder in encoders], 1)
    centre = vectors[dataset.concepts_of("train")].mean((0, 1))
    return replace(dataset, anchors=torch.nn.functional.normalize(vectors - centre, dim=-1))


class SavedResults:
    """Results by name and seed in a file, each computed once."""

    def __init__(self, path: Path) -> None:
        """Read the results of earlier runs."""
        self.path = path
        self.results: dict[tuple[str, int], dict[str, float]] = {}
        if path.exists():
            self.results = {
                (row.pop("name"), row.pop("seed")): row for row in map(json.loads, path.read_text().splitlines())
            }

    def run_once(self, name: str, seed: int, function: Callable[[], dict[str, float]]) -> dict[str, float]:
        """The saved result of a name and seed, computed if there is none."""
        if (name, seed) not in self.results:
            row = {key: round(value, 4) for key, value in function().items()}
            self.results[name, seed] = row
            with self.path.open("a") as file:
                file.write(json.dumps({"name": name, "seed": seed} | row) + "\n")
            log.info("%s, seed %d: %s", name, seed, row)
        return self.results[name, seed]


def sample_rows(dataset: ConceptDataset, seed: int, share: float, *splits: str) -> Tensor:
    """A random share of the models of some splits."""
    rows = dataset.rows(*splits)
    return rows[np.random.default_rng(seed).permutation(len(rows))[: round(share * len(rows))]]


def ranked_layers(dataset: ConceptDataset) -> list[str]:
    """All layers, the best aligned with the drawings of training concepts first."""
    rows = dataset.rows(TRAINING)
    expert = SketchRegression.fit(
        dataset.take(rows), dataset.targets[rows], dataset.concept[rows], SketchConfig(tuple(dataset.models))
    )
    return sorted(expert.alignment, key=lambda layer: -expert.alignment[layer])


def run_ablation(build: Build, fleet: str) -> None:
    """Measure every case and seed on one fleet, each layer alone, and an ensemble of closed form and probes."""
    dataset, results = load_fleet_dataset(build, fleet)[0], SavedResults(build / f"ablation-{fleet}.jsonl")
    runner = AblationRunner(dataset, dataset.rows(VALIDATION), TRAINING_SHARES[fleet])
    ranked = ranked_layers(dataset)
    closed_forms = list(closed_form_cases(tuple(dataset.models), ranked))
    single_layers = [AblationCase(f"closed form: {layer} alone", loradex_config((layer,))) for layer in ranked]
    trained = list(trained_cases(build, ranked))
    cases_by_name = {case.name: case for case in (*closed_forms, *trained)}
    ensemble = cases_by_name["closed form"], cases_by_name["probes: best 28 layers"]
    for cases, seeds in (closed_forms, SEEDS), (single_layers, SEEDS[:1]), (trained, SEEDS):
        for seed in seeds:
            for case in cases:
                results.run_once(case.name, seed, partial(runner.evaluate, case, seed))
    for seed in SEEDS:
        results.run_once("closed form and probes, averaged", seed, partial(runner.evaluate_ensemble, ensemble, seed))


@dataclass(frozen=True, slots=True)
class AblationRunner:
    """Fits and measures cases on one fleet."""

    dataset: ConceptDataset
    validation: Tensor
    share: float

    def evaluate(self, case: AblationCase, seed: int) -> dict[str, float]:
        """Metrics of one case and seed, and the best epoch of probes."""
        fitted, epochs = self.fit_case(case, seed)
        return self.dataset.brief_metrics(self.scores(fitted), self.validation) | epochs

    def fit_case(self, case: AblationCase, seed: int) -> tuple[FittedModel, dict[str, float]]:
        """The fitted encoder of one case and seed, and the best epoch of probes under ``epochs``."""
        dataset, accuracy_by_epoch = case.change_dataset(self.dataset), dict[int, float]()
        rows = case.select_rows(self.dataset, sample_rows(self.dataset, seed, self.share, TRAINING))
        fitted = fit(
            dataset,
            rows,
            case.config.with_settings(seed=seed),
            lambda epoch, score: accuracy_by_epoch.__setitem__(epoch, score),
        )
        return fitted, {
            "epochs": max(accuracy_by_epoch, key=lambda epoch: accuracy_by_epoch[epoch])
        } if accuracy_by_epoch else {}

    def evaluate_ensemble(self, cases: Sequence[AblationCase], seed: int) -> dict[str, float]:
        """Metrics of the mean scores of several cases."""
        fitted = [self.fit_case(case, seed)[0] for case in cases]
        return self.dataset.brief_metrics(
            torch.stack([self.scores(model) for model in fitted]).mean(0), self.validation
        )

    def scores(self, fitted: FittedModel) -> Tensor:
        """Scores of the validation models."""
        return fitted.scores(self.dataset.take(self.validation, fitted.model.config.layers))
