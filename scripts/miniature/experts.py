"""Step 7: experts and baselines, chosen on validation concepts, then read on held-out ones.

Every trial is kept in ``trials-<fleet>.jsonl``. A choice is made by the mean of top-1 among validation concepts, top-1 among all, and mAP.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.baselines import DenseLinear, WeightStatistics, gram_matrix
from retrieval.probex.probex import ProbeX, ProbeXConfig
from retrieval.probex.probing import Factors, energy
from retrieval.probex.sketch import SketchConfig, SketchExpert, widen
from retrieval.probex.train import ProbeXTraining, train_probex
from scripts.miniature.settings import Build, atomic, log
from scripts.miniature.study import Study, quick_scores

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)  # of ridge regressions, in mean eigenvalues
PUBLISHED = "ProbeX as published"

Encoded = tuple[Tensor, Tensor]  # vectors of the validation models, and the texts of all concepts to compare them with


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
        texts = self.study.texts
        self.placed = F.normalize(texts - texts[self.study.candidates("train")].mean(0), dim=-1)
        self.targets = self.placed[self.concepts]

    def score(self, name: str, encode: Callable[[], Encoded], extra: Callable[[], dict[str, float]] = dict) -> float:
        """The merit of one setting."""
        if name not in self.made:
            vectors, texts = encode()
            truth = self.study.concept[self.study.rows("val_holdout")]
            row = quick_scores(vectors, truth, texts, self.study.candidates("validation")) | extra()
            self.made[name] = row
            with self.path.open("a") as file:
                file.write(json.dumps({"name": name} | row) + "\n")
            log.info("trial %s: %s", name, row)
        row = self.made[name]
        return (row["top1"] + row["all_top1"] + row["map"]) / 3

    def sketch(self, config: SketchConfig, name: str) -> float:
        """A closed-form expert."""
        return self.score(name, lambda: (SketchExpert.fit(self.train, self.targets, config).encode(self.validation), self.placed))

    def dense(self, layer: str, ridge: float) -> float:
        """The dense linear baseline of one layer."""
        fitted = lambda: DenseLinear.fit(self.train, self.targets, layer, ridge).encode(self.validation)  # noqa: E731
        return self.score(f"dense {layer} ridge {ridge}", lambda: (fitted(), self.placed))

    def statistics(self) -> float:
        """The weight-statistics baseline."""
        return self.score("weight statistics", lambda: (WeightStatistics.fit(self.train, self.targets).encode(self.validation), self.placed))

    def kernel(self, layers: Sequence[str], ridge: float, normalised: bool) -> float:
        """Kernel ridge regression from dW of many layers, as in the trial that came before."""
        name = f"kernel {len(layers)} layers ridge {ridge}{' normalised' if normalised else ''}"
        return self.score(name, lambda: (self._kernel(layers, ridge, normalised), self.placed))

    def _kernel(self, layers: Sequence[str], ridge: float, normalised: bool) -> Tensor:
        count = len(self.concepts)
        gram = sum(self._gram(layer, normalised) for layer in layers)
        assert isinstance(gram, Tensor)
        centred = gram[:count, :count] - gram[:count, :count].mean(0)
        penalty = ridge * centred.diagonal().mean() * torch.eye(count)
        dual = torch.linalg.solve(gram[:count, :count] + penalty, self.targets - self.targets.mean(0))
        return F.normalize(gram[count:, :count] @ dual + self.targets.mean(0), dim=-1)

    def _gram(self, layer: str, normalised: bool) -> Tensor:
        both = widen(Factors(*(torch.cat([getattr(part[layer], name) for part in (self.train, self.validation)]) for name in ("down", "up"))))
        norm = energy(both).sqrt() if normalised else torch.ones(len(both))
        return gram_matrix(both) / norm[:, None] / norm[None]

    def best_probex(self, by_layer: Sequence[str]) -> Iterator[tuple[str, tuple[ProbeXConfig, ProbeXTraining]]]:
        """ProbeX as published and with a temperature, each on its best of three layers, and on eight layers at once."""
        warmer = ProbeXTraining(temperature=0.05, unit_responses=True)
        for name, training in (PUBLISHED, ProbeXTraining()), ("ProbeX with temperature", warmer):
            scored = {layer: self.probex(ProbeXConfig((layer,)), training, f"{name} {layer}") for layer in by_layer[:3]}
            best = max(scored, key=lambda layer: scored[layer])
            yield name, (ProbeXConfig((best,)), self.with_best_epochs(training, f"{name} {best}"))
        eight, shorter, name = ProbeXConfig(tuple(by_layer[:8]), probes=64, projection=64), replace(warmer, epochs=60), "ProbeX with temperature, 8 layers"
        self.probex(eight, shorter, name)
        yield name, (eight, self.with_best_epochs(shorter, name))

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
            return quick_scores(probex.encode(widened), truth, probex.encode_text(self.study.texts), among)["top1"]

        def encode() -> Encoded:
            best = train_probex(self.train, rows, self.study.texts[seen], config, training, validate, scores.__setitem__)
            with torch.inference_mode():
                return best.encode(widened), best.encode_text(self.study.texts)

        return self.score(name, encode, lambda: {"epochs": max(scores, key=lambda epoch: scores[epoch])})


def values_and_outputs(layers: Sequence[str]) -> tuple[str, ...]:
    """The layers that carry the concept best: values and outputs of all attentions."""
    return tuple(layer for layer in layers if layer.endswith(("to_v", "to_out.0")))


def sketch_configs(layers: Sequence[str]) -> Iterator[tuple[str, SketchConfig]]:
    """The settings of sketches that are tried."""
    for kind, chosen in ("all", tuple(layers)), ("values and outputs", values_and_outputs(layers)):
        for size in (8, 12, 16, 24):
            for whitening in (0.0, 0.5, 1.0):
                for ridge in PENALTIES:
                    yield f"sketch {kind} {size}x{size} whitening {whitening} ridge {ridge}", SketchConfig(chosen, size, size, whitening, ridge)


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
        for ridge in PENALTIES:
            trials.kernel(layers, ridge, normalised)
    sketch = max(sketch_configs(layers), key=lambda named: trials.sketch(named[1], named[0]))[1]
    by_layer = sorted(layers, key=lambda layer: -trials.dense(layer, 0.1))
    dense = max(((layer, ridge) for layer in by_layer[:4] for ridge in PENALTIES), key=lambda pair: trials.dense(*pair))
    Choice(sketch, dense, dict(trials.best_probex(by_layer))).save(build, fleet)
