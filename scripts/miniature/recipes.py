"""Step 8: the best recipe that we find for every encoder, on validation concepts; every trial is kept in ``recipes-<fleet>.jsonl``.

ProbeX and MVProbe start as published, on the better of two layers; then each change in turn is kept if it helps, and the result is tried on many layers.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from loradex.retrieval.measure.baselines import DenseLinear, PrincipalWeights, WeightStatistics
from loradex.retrieval.space.calibration import Background
from loradex.retrieval.training.concept_dataset import TRAINING, VALIDATION, Aim, Study
from loradex.retrieval.training.fit import ExpertConfig, config_of, fit, loradex, mvprobe, probex
from scripts.miniature.ablation import Runs, gentle, ranked_layers
from scripts.miniature.fleet_dataset import load_study
from scripts.miniature.settings import Build, atomic

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)  # of ridge regressions, in mean eigenvalues
COMPONENTS = (64, 256, 1024)
SIZES = {"a": (20, 24), "b": (16, 20)}  # of sketches
OURS = "Loradex"

Baseline = DenseLinear | WeightStatistics | PrincipalWeights


@dataclass(frozen=True, slots=True)
class Choice:
    """What won on validation concepts."""

    experts: dict[str, ExpertConfig]  # with the best number of epochs
    dense: tuple[str, float]  # layer and penalty
    principal: tuple[int, float]  # components and penalty

    def save(self, build: Build, fleet: str) -> None:
        """Write ``recipes-<fleet>.json``."""
        with atomic(build / f"recipes-{fleet}.json") as path:
            path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, build: Build, fleet: str) -> "Choice":
        """Read what ``save`` wrote."""
        made = json.loads((build / f"recipes-{fleet}.json").read_text())
        return cls(
            {name: config_of(config) for name, config in made["experts"].items()},
            tuple(made["dense"]),
            tuple(made["principal"]),
        )


class Search:
    """Trials on the validation concepts of one fleet."""

    def __init__(self, build: Build, fleet: str) -> None:
        """Read the fleet, and the trials made before."""
        self.study, self.runs = load_study(build, fleet)[0], Runs(build / f"recipes-{fleet}.jsonl")
        self.train, self.validation = self.study.rows(TRAINING), self.study.rows(VALIDATION)
        self.ranked = ranked_layers(self.study)

    def expert(self, name: str, config: ExpertConfig) -> tuple[float, ExpertConfig]:
        """The merit of one recipe, and the recipe with its best number of epochs."""
        row = self.runs.once(name, 0, lambda: self._fit(config))
        epochs = int(row.get("epochs", config.training.epochs))
        return value(row), config.changed(epochs=epochs)

    def _fit(self, config: ExpertConfig) -> dict[str, float]:
        looks: dict[int, float] = {}
        fitted = fit(self.study, self.train, config, looks.__setitem__)
        scores = fitted.scores(self.study.take(self.validation, fitted.model.config.layers))
        return self.study.brief(scores, self.validation) | (
            {"epochs": max(looks, key=lambda epoch: looks[epoch])} if looks else {}
        )

    def improved(self, name: str, published: ExpertConfig) -> Iterator[tuple[str, ExpertConfig]]:
        """The published recipe, the best one, and the best over many layers."""
        best, chosen = self.expert(f"{name} as published", published)
        yield f"{name} as published", chosen
        kept, steps = published, ""
        for change, settings in CHANGES.items():
            merit, config = self.expert(f"{name}{steps}, {change}", kept.changed(**settings))
            if merit > best:
                best, chosen, kept, steps = merit, config, kept.changed(**settings), f"{steps}, {change}"
        yield f"{name}, best recipe", chosen
        many = [(count, kept.changed(layers=tuple(self.ranked[:count]), **MANY)) for count in (8, 28)]
        yield (
            f"{name}, best recipe, many layers",
            max((self.expert(f"{name}{steps}, {n} layers", config) for n, config in many), key=lambda pair: pair[0])[1],
        )

    def layer_of(self, published: Any, name: str) -> ExpertConfig:
        """The published recipe on the better of two layers."""
        return max(
            (gentle(published(layer)) for layer in self.ranked[:2]),
            key=lambda config: self.expert(f"{name} on {config.model.layers[0]}", config)[0],
        )

    def baseline(self, name: str, fitted: Any) -> float:
        """The merit of a baseline, its labels scored against the background."""
        return value(
            self.runs.once(
                name,
                0,
                lambda: self.study.brief(
                    standardised(fitted(), self.study, self.train, self.validation), self.validation
                ),
            )
        )


CHANGES: dict[str, dict[str, Any]] = {
    "temperature 0.05": {"temperature": 0.05},
    "responses standardised": {"standardise": True},
    "aims at drawings, against the background": {"aim": Aim.DRAWINGS, "against_background": True},
    "rate 1e-3": {"lr": 1e-3},
    "rate 3e-4": {"lr": 3e-4},
    "symmetric": {"symmetric": True},
    "temperature 0.1": {"temperature": 0.1},
}
MANY = {"probes": 32, "projection": 32, "layer_dropout": 0.3}


def value(row: dict[str, float]) -> float:
    """The mean of the three figures."""
    return (row["top1"] + row["all_top1"] + row["map"]) / 3


def standardised(encoder: Baseline, study: Study, train: Any, rows: Any) -> Any:
    """Scores of a baseline against the background of its training models."""
    return Background.of(encoder.encode(study.take(train))).standardise(encoder.encode(study.take(rows)), study.labels)


def sketches(fleet: str, layers: tuple[str, ...]) -> Iterator[tuple[str, ExpertConfig]]:
    """The settings of closed forms that are tried, as large as what ships may be."""
    for size in SIZES[fleet]:
        for ridge in (0.2, 0.3, 0.5):
            yield (
                f"closed form {size} x {size}, rank 40, ridge {ridge}",
                loradex(layers).changed(outputs=size, inputs=size, rank=40, ridge=ridge),
            )


def choose_recipes(build: Build, fleet: str) -> None:
    """Every trial of one fleet, and the choice."""
    if (build / f"recipes-{fleet}.json").exists():
        return
    search = Search(build, fleet)
    study, train = search.study, search.study.take(search.train)
    targets = study.targets[search.train]
    ours = max(sketches(fleet, tuple(study.models)), key=lambda named: search.expert(*named)[0])[1]
    dense = max(
        ((layer, ridge) for layer in search.ranked[:4] for ridge in PENALTIES),
        key=lambda pair: search.baseline(
            f"dense {pair[0]} ridge {pair[1]}", lambda: DenseLinear.fit(train, targets, *pair)
        ),
    )
    principal = max(
        ((count, ridge) for count in COMPONENTS for ridge in PENALTIES[:3:2]),
        key=lambda pair: search.baseline(
            f"principal {pair[0]} ridge {pair[1]}", lambda: PrincipalWeights.fit(train, targets, *pair)
        ),
    )
    experts = {OURS: ours}
    for name, published in ("ProbeX", probex), ("MVProbe", mvprobe):
        experts |= dict(search.improved(name, search.layer_of(published, name)))
    Choice(experts, dense, principal).save(build, fleet)
