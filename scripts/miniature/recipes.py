"""Steps ``recipes-a`` and ``recipes-b``: choose the best recipe of each encoder on validation concepts.

ProbeX and MVProbe start as published, on the better of two layers; each change in turn is kept if it helps, and the
result is tried on many layers. Every trial is kept in ``recipes-<fleet>.jsonl``.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from loradex.retrieval.measure.baselines import DenseLinear, PrincipalWeights, WeightStatistics
from loradex.retrieval.space.calibration import Background
from loradex.retrieval.training.concept_dataset import TRAINING, VALIDATION, ConceptDataset
from loradex.retrieval.training.dataset import Aim
from loradex.retrieval.training.expert_config import (
    ExpertConfig,
    config_from_dict,
    loradex_config,
    mvprobe_config,
    probex_config,
)
from loradex.retrieval.training.fit import fit
from scripts.miniature.ablation import SavedResults, ranked_layers, with_frequent_checks
from scripts.miniature.fleet_dataset import load_fleet_dataset
from scripts.miniature.settings import Build, atomic

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)  # of ridge regressions, in mean eigenvalues
COMPONENTS = (64, 256, 1024)
SKETCH_SIZES = {"a": (20, 24), "b": (16, 20)}  # a side, of closed forms
OURS = "Loradex"  # the closed form's name among the recipes

Baseline = DenseLinear | WeightStatistics | PrincipalWeights


@dataclass(frozen=True, slots=True)
class ChosenRecipes:
    """The recipes that did best on validation concepts."""

    experts: dict[str, ExpertConfig]  # by name, with their best number of epochs
    dense: tuple[str, float]  # layer and penalty
    principal: tuple[int, float]  # components and penalty

    def save(self, build: Build, fleet: str) -> None:
        """Write ``recipes-<fleet>.json``."""
        with atomic(build / f"recipes-{fleet}.json") as path:
            path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, build: Build, fleet: str) -> "ChosenRecipes":
        """Read ``recipes-<fleet>.json``."""
        saved = json.loads((build / f"recipes-{fleet}.json").read_text())
        return cls(
            {name: config_from_dict(config) for name, config in saved["experts"].items()},
            tuple(saved["dense"]),
            tuple(saved["principal"]),
        )


class RecipeSearch:
    """Tries recipes on the validation concepts of one fleet."""

    def __init__(self, build: Build, fleet: str) -> None:
        """Read the fleet and the results of earlier trials."""
        self.dataset, self.results = load_fleet_dataset(build, fleet)[0], SavedResults(build / f"recipes-{fleet}.jsonl")
        self.training_rows, self.validation_rows = self.dataset.rows(TRAINING), self.dataset.rows(VALIDATION)
        self.ranked = ranked_layers(self.dataset)

    def try_expert(self, name: str, config: ExpertConfig) -> tuple[float, ExpertConfig]:
        """The score of a recipe, and the recipe with its best number of epochs."""
        row = self.results.run_once(name, 0, lambda: self._fit(config))
        epochs = int(row.get("epochs", config.training.epochs))
        return mean_score(row), config.with_settings(epochs=epochs)

    def _fit(self, config: ExpertConfig) -> dict[str, float]:
        accuracy_by_epoch: dict[int, float] = {}
        fitted = fit(self.dataset, self.training_rows, config, accuracy_by_epoch.__setitem__)
        scores = fitted.scores(self.dataset.take(self.validation_rows, fitted.model.config.layers))
        return self.dataset.brief_metrics(scores, self.validation_rows) | (
            {"epochs": max(accuracy_by_epoch, key=lambda epoch: accuracy_by_epoch[epoch])} if accuracy_by_epoch else {}
        )

    def improve(self, name: str, published: ExpertConfig) -> Iterator[tuple[str, ExpertConfig]]:
        """Yield name and settings of the published recipe, of the best one, and of the best over many layers."""
        best_score, chosen = self.try_expert(f"{name} as published", published)
        yield f"{name} as published", chosen
        current, changes = published, ""
        for change, settings in CHANGES.items():
            score, config = self.try_expert(f"{name}{changes}, {change}", current.with_settings(**settings))
            if score > best_score:
                best_score, chosen = score, config
                current, changes = current.with_settings(**settings), f"{changes}, {change}"
        yield f"{name}, best recipe", chosen
        results = []
        for count in (8, 28):
            config = current.with_settings(layers=tuple(self.ranked[:count]), **MANY_LAYERS)
            results.append(self.try_expert(f"{name}{changes}, {count} layers", config))
        yield f"{name}, best recipe, many layers", max(results, key=lambda result: result[0])[1]

    def on_better_layer(self, published: Any, name: str) -> ExpertConfig:
        """The published recipe on the better of the two best aligned layers."""
        return max(
            (with_frequent_checks(published(layer)) for layer in self.ranked[:2]),
            key=lambda config: self.try_expert(f"{name} on {config.model.layers[0]}", config)[0],
        )

    def try_baseline(self, name: str, fit_baseline: Any) -> float:
        """The score of a baseline, with labels scored against the background."""
        return mean_score(
            self.results.run_once(
                name,
                0,
                lambda: self.dataset.brief_metrics(
                    background_scores(fit_baseline(), self.dataset, self.training_rows, self.validation_rows),
                    self.validation_rows,
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
MANY_LAYERS = {"probes": 32, "projection": 32, "layer_dropout": 0.3}


def mean_score(row: dict[str, float]) -> float:
    """The mean of the three metrics of ``ConceptDataset.brief_metrics``."""
    return (row["top1"] + row["all_top1"] + row["map"]) / 3


def background_scores(encoder: Baseline, dataset: ConceptDataset, training_rows: Any, rows: Any) -> Any:
    """Scores of a baseline against the background of its training models."""
    return Background.fit(encoder.encode(dataset.take(training_rows))).z_scores(
        encoder.encode(dataset.take(rows)), dataset.labels
    )


def closed_form_recipes(fleet: str, layers: tuple[str, ...]) -> Iterator[tuple[str, ExpertConfig]]:
    """Name and settings of each closed form that is tried; none is too large to ship."""
    for size in SKETCH_SIZES[fleet]:
        for ridge in (0.2, 0.3, 0.5):
            yield (
                f"closed form {size} x {size}, rank 40, ridge {ridge}",
                loradex_config(layers).with_settings(outputs=size, inputs=size, rank=40, ridge=ridge),
            )


def choose_recipes(build: Build, fleet: str) -> None:
    """Run all trials of one fleet, and write ``recipes-<fleet>.json``."""
    if (build / f"recipes-{fleet}.json").exists():
        return
    search = RecipeSearch(build, fleet)
    dataset, training_models = search.dataset, search.dataset.take(search.training_rows)
    targets = dataset.targets[search.training_rows]
    ours = max(closed_form_recipes(fleet, tuple(dataset.models)), key=lambda recipe: search.try_expert(*recipe)[0])[1]
    dense = max(
        ((layer, ridge) for layer in search.ranked[:4] for ridge in PENALTIES),
        key=lambda pair: search.try_baseline(
            f"dense {pair[0]} ridge {pair[1]}", lambda: DenseLinear.fit(training_models, targets, *pair)
        ),
    )
    principal = max(
        ((count, ridge) for count in COMPONENTS for ridge in PENALTIES[:3:2]),
        key=lambda pair: search.try_baseline(
            f"principal {pair[0]} ridge {pair[1]}", lambda: PrincipalWeights.fit(training_models, targets, *pair)
        ),
    )
    experts = {OURS: ours}
    for name, published in ("ProbeX", probex_config), ("MVProbe", mvprobe_config):
        experts |= dict(search.improve(name, search.on_better_layer(published, name)))
    ChosenRecipes(experts, dense, principal).save(build, fleet)
