"""Step 7: experts and baselines, chosen on validation concepts, then read on held-out ones.

Every trial is kept in ``trials-<fleet>.jsonl``. A choice is made by the mean of top-1 among validation concepts, top-1 among all, and mAP.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.baselines import DenseLinear, WeightStatistics, gram_matrix
from retrieval.probex.probex import ProbeX, ProbeXConfig
from retrieval.probex.probing import Factors, energy
from retrieval.probex.sketch import SketchConfig, SketchExpert, widen
from retrieval.probex.train import ProbeXTraining, train_probex
from retrieval.space import Background
from scripts.miniature.settings import Build, atomic, log
from scripts.miniature.study import Study, quick_scores

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)  # of ridge regressions, in mean eigenvalues
PUBLISHED = "ProbeX as published"

Fitted = SketchExpert | DenseLinear | WeightStatistics


class Trials:
    """Scores of settings on validation concepts, each measured once and kept."""

    def __init__(self, build: Build, fleet: str) -> None:
        """Read the fleet, and the trials made before."""
        self.study = Study.load(build, fleet)
        self.path = build / f"trials-{fleet}.jsonl"
        self.made: dict[str, dict[str, float]] = {}
        if self.path.exists():
            self.made = {row.pop("name"): row for row in map(json.loads, self.path.read_text().splitlines())}
        self.train = self.study.take(self.study.rows("train"))
        self.validation = self.study.take(self.study.rows("val_holdout"))
        self.concepts = self.study.concept[self.study.rows("train")]
        self.targets = self.study.targets[self.study.rows("train")]

    def score(self, name: str, encode: Callable[[], Tensor], extra: Callable[[], dict[str, float]] = dict) -> float:
        """The merit of one setting; ``encode`` gives scores (validation models, concepts)."""
        if name not in self.made:
            truth = self.study.concept[self.study.rows("val_holdout")]
            row = quick_scores(encode(), truth, self.study.candidates("validation")) | extra()
            self.made[name] = row
            with self.path.open("a") as file:
                file.write(json.dumps({"name": name} | row) + "\n")
            log.info("trial %s: %s", name, row)
        row = self.made[name]
        return (row["top1"] + row["all_top1"] + row["map"]) / 3

    def fitted(self, encoder: Fitted) -> Tensor:
        """Standardised scores of the validation models, by an encoder fitted on the training models."""
        return Background.of(encoder.encode(self.train)).standardise(encoder.encode(self.validation), self.study.labels)

    def sketch(self, config: SketchConfig, name: str) -> float:
        """A closed-form expert."""
        return self.score(name, lambda: self.fitted(SketchExpert.fit(self.train, self.targets, config)))

    def sketch_alternatives(self, config: SketchConfig) -> None:
        """One change each of the chosen expert: plain cosines, and targets of other kinds."""
        labels, train = self.study.labels, self.study.rows("train")
        self.score("chosen, plain cosines", lambda: SketchExpert.fit(self.train, self.targets, config).encode(self.validation) @ labels.T)
        texts = labels[self.study.concept[train]]
        self.score("chosen, fitted to texts", lambda: self.fitted(SketchExpert.fit(self.train, texts, config)))
        self.score("chosen, fitted to texts, plain cosines", lambda: SketchExpert.fit(self.train, texts, config).encode(self.validation) @ labels.T)

    def dense(self, layer: str, ridge: float) -> float:
        """The dense linear baseline of one layer."""
        return self.score(f"dense {layer} ridge {ridge}", lambda: self.fitted(DenseLinear.fit(self.train, self.targets, layer, ridge)))

    def statistics(self) -> float:
        """The weight-statistics baseline."""
        return self.score("weight statistics", lambda: self.fitted(WeightStatistics.fit(self.train, self.targets)))

    def kernels(self, layers: Sequence[str], normalised: bool) -> None:
        """Kernel ridge regression from dW of many layers, as in the trial that came before, with two penalties."""
        gram = cache(lambda: sum((self._gram(layer, normalised) for layer in layers[1:]), self._gram(layers[0], normalised)))
        for ridge in (0.1, 0.3):
            name = f"kernel {len(layers)} layers ridge {ridge}{' normalised' if normalised else ''}"
            self.score(name, lambda ridge=ridge: self._kernel(gram(), ridge))  # type: ignore[misc]

    def _kernel(self, gram: Tensor, ridge: float) -> Tensor:
        count = len(self.concepts)
        known = gram[:count]
        penalty = ridge * (known - known.mean(0)).diagonal().mean() * torch.eye(count)
        dual = torch.linalg.solve(known - known.mean(0) + penalty, self.targets - self.targets.mean(0))
        vectors = F.normalize((gram - known.mean(0)) @ dual, dim=-1)
        return Background.of(vectors[:count]).standardise(vectors[count:], self.study.labels)

    def _gram(self, layer: str, normalised: bool) -> Tensor:
        both = widen(Factors(*(torch.cat([getattr(part[layer], name) for part in (self.train, self.validation)]) for name in ("down", "up"))))
        norm = energy(both).sqrt() if normalised else torch.ones(len(both))
        count = len(self.concepts)
        return (gram_matrix(both) / norm[:, None] / norm[None])[:, :count]

    def best_probex(self, by_layer: Sequence[str]) -> Iterator[tuple[str, tuple[ProbeXConfig, ProbeXTraining]]]:
        """ProbeX as published on the better of two layers, the same with a temperature, and eight layers at once."""
        scored = {layer: self.probex(ProbeXConfig((layer,)), ProbeXTraining(), f"{PUBLISHED} {layer}") for layer in by_layer[:2]}
        best = max(scored, key=lambda layer: scored[layer])
        yield PUBLISHED, (ProbeXConfig((best,)), self.with_best_epochs(ProbeXTraining(), f"{PUBLISHED} {best}"))
        warmer = ProbeXTraining(epochs=60, temperature=0.05, unit_responses=True)
        for name, config in (
            ("ProbeX with temperature", ProbeXConfig((best,))),
            ("ProbeX with temperature, 8 layers", ProbeXConfig(tuple(by_layer[:8]), probes=64, projection=64)),
        ):
            self.probex(config, warmer, name)
            yield name, (config, self.with_best_epochs(warmer, name))

    def with_best_epochs(self, training: ProbeXTraining, name: str) -> ProbeXTraining:
        """The same training, ended at the epoch that was best on validation concepts."""
        return replace(training, epochs=int(self.made[name]["epochs"]))

    def probex(self, config: ProbeXConfig, training: ProbeXTraining, name: str) -> float:
        """A learned ProbeX."""
        seen = self.study.candidates("train")
        rows = torch.searchsorted(torch.from_numpy(seen), self.concepts)
        truth, among = self.study.concept[self.study.rows("val_holdout")], self.study.candidates("validation")
        widened = {layer: widen(self.validation[layer]) for layer in config.layers}
        scores: dict[int, float] = {}

        def validate(probex: ProbeX) -> float:
            return quick_scores(probex.encode(widened) @ probex.encode_text(self.study.texts).T, truth, among)["top1"]

        def encode() -> Tensor:
            best = train_probex(self.train, rows, self.study.texts[seen], config, training, validate, scores.__setitem__)
            with torch.inference_mode():
                return best.encode(widened) @ best.encode_text(self.study.texts).T

        return self.score(name, encode, lambda: {"epochs": max(scores, key=lambda epoch: scores[epoch])})


def sketch_configs(layers: Sequence[str]) -> Iterator[tuple[str, SketchConfig]]:
    """The settings of sketches that are tried."""
    for size in (16, 20, 24):
        for weight in (0.0, 0.5, 1.0):
            for ridge in (0.2, 0.5, 1.0):
                kept = tuple(layer for layer in layers if weight or not layer.endswith(("to_q", "to_k")))
                yield f"sketch {size} x {size}, queries and keys x {weight}, ridge {ridge}", SketchConfig(kept, size, size, weight, ridge)


@dataclass(frozen=True, slots=True)
class Choice:
    """The settings that won on validation concepts."""

    sketch: SketchConfig
    dense: tuple[str, float]  # layer and penalty
    probex: dict[str, tuple[ProbeXConfig, ProbeXTraining]]  # with the best number of epochs

    def save(self, build: Build, fleet: str) -> None:
        """Write ``chosen-<fleet>.json``."""
        with atomic(build / f"chosen-{fleet}.json") as path:
            path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, build: Build, fleet: str) -> "Choice":
        """Read what ``save`` wrote."""
        made = json.loads((build / f"chosen-{fleet}.json").read_text())
        probex = {name: (ProbeXConfig(**tuple_layers(config)), ProbeXTraining(**training)) for name, (config, training) in made["probex"].items()}
        return cls(SketchConfig(**tuple_layers(made["sketch"])), (made["dense"][0], made["dense"][1]), probex)


def tuple_layers(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings, layers as a tuple."""
    return settings | {"layers": tuple(settings["layers"])}


def run_trials(build: Build, fleet: str) -> None:
    """Every trial of one fleet, and the choice."""
    if (build / f"chosen-{fleet}.json").exists():
        return
    trials = Trials(build, fleet)
    layers = list(trials.train)
    trials.statistics()
    for normalised in (False, True):
        trials.kernels(layers, normalised)
    sketch = max(sketch_configs(layers), key=lambda named: trials.sketch(named[1], named[0]))[1]
    trials.sketch_alternatives(sketch)
    by_layer = sorted(layers, key=lambda layer: -trials.dense(layer, 0.1))
    dense = max(((layer, ridge) for layer in by_layer[:4] for ridge in PENALTIES), key=lambda pair: trials.dense(*pair))
    Choice(sketch, dense, dict(trials.best_probex(by_layer))).save(build, fleet)
