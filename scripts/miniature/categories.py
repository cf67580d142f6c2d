"""Steps ``categories-vit`` and ``categories-resnet``: measure how well each encoder predicts a classifier's categories.

Recipes are chosen on validation models and measured on test models. A seed draws nine tenths of the training models and
initialises probes. ProbeX and MVProbe as published read the weights themselves of the best layer; those "of the
difference" read the difference to the ancestor, with the recipe that does best on validation models. Probes stop after
a hundred epochs without improvement.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.lora import FullModel
from loradex.retrieval.lora.header import Header
from loradex.retrieval.measure.baselines import WeightStatistics
from loradex.retrieval.measure.metrics import bootstrap_mean
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.probes import ProbeConfig
from loradex.retrieval.probex.sketch import SketchConfig
from loradex.retrieval.training.category_dataset import CategoryDataset, make_category_dataset
from loradex.retrieval.training.dataset import Aim
from loradex.retrieval.training.expert_config import PUBLISHED_CATEGORIES, ExpertConfig, mvprobe_config, probex_config
from loradex.retrieval.training.fit import fit
from loradex.retrieval.training.labelled_classifiers import find_classifiers
from loradex.retrieval.training.packing import pack_opened_files
from scripts.miniature.classifiers import TREES
from scripts.miniature.settings import Build, atomic, log
from scripts.model_j.category_protocol import fit_dense, measure_accuracy

SEEDS: Final = (0, 1, 2)
TRAINING_SHARE: Final = 0.9  # of the training models, for each seed
HEAD_PREFIX: Final = "classifier"  # layers of the head, whose rows have another order in each model
PENALTIES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # of the dense map
MAX_PARAMETER_SHARE: Final = 0.1  # of the dense map's parameters, for the closed form
PROBE_TRAINING: Final = replace(PUBLISHED_CATEGORIES, patience=4)  # stop after a hundred epochs without improvement
# At most, of MVProbe in its published size, which takes minutes for a hundred; half of them on the weights themselves.
MVPROBE_EPOCHS: Final = 200
PROBE_LAYERS: Final = 8  # of probes that read several
SHIPPED_LAYERS: Final = 4
SHIPPED_DIRECTIONS: Final = 24  # a side
CANDIDATE_DIRECTIONS: Final = 128  # principal directions from which the best are chosen
MAX_SHIPPED_WEIGHTS: Final = 48 * 432  # of a layer


class ClassifierData:
    """The classifiers of one model tree in memory."""

    def __init__(self, build: Build, tree: str, base: Path | None = None) -> None:
        """Read all files as differences to the ancestor, or to ``base`` in its place."""
        self.tree, folder = tree, build / f"classifiers-{tree}"
        self.base = base or folder / "ancestor" / "model.safetensors"
        files = find_classifiers(folder)
        opened = [FullModel.open(file.path, self.base, TREES[tree].family) for file in files]
        self.layers = tuple(layer for layer in opened[0].shapes if not layer.startswith(HEAD_PREFIX))
        self.differences = make_category_dataset(pack_opened_files(opened, self.layers), files)
        self.distances = torch.tensor([model.distance(self.layers) for model in opened])
        self.opened = opened

    @cached_property
    def weights(self) -> CategoryDataset:
        """The same models by their weights instead of their differences."""
        header, dataset = Header.read(self.base), self.differences
        models = {}
        for layer in self.layers:
            tensors = header.load([self.opened[0].tensors[layer][1]])
            base = next(iter(tensors.values())).float().flatten(1)
            weights = torch.stack(
                [
                    base + update.up.float() @ update.down.float()
                    for update in map(dataset.models[layer].__getitem__, torch.arange(len(dataset.split)))
                ]
            )
            models[layer] = Factors.of_matrices(weights.half())
        return CategoryDataset(models, dataset.members, dataset.split, dataset.names)

    def training_rows(self, seed: int) -> Tensor:
        """Rows of the training models of a seed."""
        rows = self.differences.rows("train")
        chosen = np.random.default_rng((seed, 9)).permutation(len(rows))[: round(TRAINING_SHARE * len(rows))]
        return rows[torch.from_numpy(np.sort(chosen))]


def shipped_config(data: ClassifierData) -> ExpertConfig:
    """Settings of the expert that ships: it reads layers so small that those of some models can ship too."""
    layers = tuple(layer for layer in data.layers if math.prod(data.opened[0].shapes[layer]) <= MAX_SHIPPED_WEIGHTS)
    return ExpertConfig(
        SketchConfig(
            layers,
            SHIPPED_DIRECTIONS,
            SHIPPED_DIRECTIONS,
            quadratic=0.0,
            ridge=0.05,
            most_layers=SHIPPED_LAYERS,
            wide=CANDIDATE_DIRECTIONS,
        )
    )


def closed_form_configs(layers: tuple[str, ...]) -> Iterator[tuple[str, ExpertConfig]]:
    """Name and settings of each closed form that is tried on validation models."""
    counts = [count for count in (4, 6, 8, 12, len(layers)) if count <= len(layers)]
    for count, directions, ridge, wide in product(counts, (16, 24, 32, 48), (0.03, 0.1), (None, CANDIDATE_DIRECTIONS)):
        name = f"best {count} layers, {directions} directions{f' of {wide}' if wide else ''}, ridge {ridge}"
        config = SketchConfig(layers, directions, directions, quadratic=0.0, ridge=ridge, most_layers=count, wide=wide)
        yield name, ExpertConfig(config)


def probe_recipes(ranked: tuple[str, ...]) -> Iterator[tuple[str, bool, list[ExpertConfig]]]:
    """Each kind of probes: its name, whether it reads the weights themselves, and the recipes to choose from.

    ``ranked`` are the layers, the best first; most kinds read the first alone.
    """
    layer = ranked[0]
    probex, mvprobe = probex_config(layer).model, mvprobe_config(layer).model
    assert isinstance(probex, ProbeConfig) and isinstance(mvprobe, ProbeConfig)
    yield "ProbeX as published", True, [ExpertConfig(probex, PROBE_TRAINING)]
    fast, slow = replace(PROBE_TRAINING, lr=3e-3), replace(PROBE_TRAINING, lr=3e-4)
    models = probex, replace(probex, standardise=True)
    yield (
        "ProbeX of the difference",
        False,
        [ExpertConfig(model, training) for model in models for training in (PROBE_TRAINING, fast)],
    )
    small, short = (
        replace(mvprobe, probes=64, projection=64, representation=256),
        replace(PROBE_TRAINING, epochs=MVPROBE_EPOCHS),
    )
    yield (
        "MVProbe of the difference",
        False,
        [ExpertConfig(small, PROBE_TRAINING), ExpertConfig(small, slow), ExpertConfig(mvprobe, short)],
    )
    several = ProbeConfig(ranked[:PROBE_LAYERS], probes=64, projection=64, representation=256, standardise=True)
    yield f"ProbeX of the difference, best {PROBE_LAYERS} layers", False, [ExpertConfig(several, PROBE_TRAINING)]
    yield "MVProbe as published", True, [ExpertConfig(mvprobe, replace(short, epochs=MVPROBE_EPOCHS // 2))]


class CategoryExperiments:
    """The measurements on one model tree; each result is saved as soon as it is computed."""

    def __init__(self, build: Build, data: ClassifierData, other: ClassifierData | None) -> None:
        """``other`` are models of another ancestor, as differences to this tree's ancestor."""
        self.data, self.other, self.differences = data, other, data.differences
        self.path = build / f"categories-{data.tree}.json"

    def load_results(self) -> dict[str, Any]:
        """All results so far, of this process and others."""
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def run_once(self, name: str, function: Callable[[], Any]) -> Any:
        """The saved result of that name, computed if there is none."""
        if name not in self.load_results():
            result = function()
            with atomic(self.path) as path:
                path.write_text(json.dumps(self.load_results() | {name: result}, indent=1))
            log.info("%s: %s: %s", self.data.tree, name, str(result)[:150])
        return self.load_results()[name]

    def evaluate_fit(self, use_weights: bool, config: ExpertConfig, seed: int, split: str) -> dict[str, Any]:
        """Fit an expert, on differences or on the weights themselves, and measure it on the models of a split.

        On ``test`` it is also measured on the models of another ancestor, if there are any.
        """
        training = self.data.weights if use_weights else self.differences
        fitted = fit(
            training,
            self.data.training_rows(seed),
            config.with_settings(seed=seed) if isinstance(config.model, ProbeConfig) else config,
        )

        def accuracy_on(dataset: CategoryDataset) -> dict[str, Any]:
            rows = dataset.rows(split)
            return measure_accuracy(dataset, rows, fitted.scores(dataset.take(rows, fitted.model.config.layers)))

        result = accuracy_on(training) | {"parameters": fitted.parameters}
        if self.other and split == "test":
            result["across_trees"] = accuracy_on(self.other.weights if use_weights else self.other.differences)
        return result

    def evaluate_dense(self, layers: Sequence[str], seed: int, split: str) -> dict[str, Any]:
        """Fit a linear map from all weights of some layers, and measure it as ``evaluate_fit`` does."""
        dense = fit_dense(self.differences, layers, self.data.training_rows(seed), PENALTIES)

        def accuracy_on(dataset: CategoryDataset) -> dict[str, Any]:
            rows = dataset.rows(split)
            return measure_accuracy(dataset, rows, dense.model.encode(dataset.take(rows, layers)))

        result = accuracy_on(self.differences) | {"parameters": dense.parameters, "penalty": dense.penalty}
        if self.other and split == "test":
            result["across_trees"] = accuracy_on(self.other.differences)
        return result

    def evaluate_statistics(self, use_weights: bool, layers: Sequence[str], seed: int, split: str) -> dict[str, Any]:
        """Fit a small net over moments and quantiles of some layers, and measure it."""
        dataset, rows = self.data.weights if use_weights else self.differences, self.data.training_rows(seed)
        targets = dataset.regression_targets(rows, Aim.LABELS)[0]
        model = WeightStatistics.fit(dataset.take(rows, layers), targets, seed=seed)
        rows = dataset.rows(split)
        return measure_accuracy(dataset, rows, model.encode(dataset.take(rows, layers)))

    def evaluate_layer(self, layer: str, seed: int, split: str) -> dict[str, dict[str, Any]]:
        """Measure each kind of encoder that takes seconds, on one layer alone."""
        closed_form = SketchConfig((layer,), 32, 32, quadratic=0.0, ridge=0.05, wide=CANDIDATE_DIRECTIONS)
        return {
            "closed form": self.evaluate_fit(False, ExpertConfig(closed_form), seed, split),
            "dense linear": self.evaluate_dense([layer], seed, split),
            "weight statistics": self.evaluate_statistics(True, [layer], seed, split),
        }

    def lead_over_dense(self, config: ExpertConfig) -> dict[str, Any]:
        """The share of categories that an expert predicts correctly, less that of the dense map of all layers.

        Averaged over all seeds on test models, with an interval over models.
        """
        rows, leads = self.differences.rows("test"), []
        members, unseen = self.differences.members[rows], self.differences.take(rows)
        for seed in SEEDS:
            training_rows = self.data.training_rows(seed)
            expert = fit(self.differences, training_rows, config).scores(unseen)
            dense = fit_dense(self.differences, self.data.layers, training_rows, PENALTIES).model.encode(unseen)
            lead = ((expert > 0) == members).float() - ((dense > 0) == members).float()
            leads.append(lead.mean(1).double().numpy())
        return asdict(bootstrap_mean(np.mean(leads, 0), np.arange(len(rows)), 0.0))

    def run(self) -> None:
        """Make all choices on validation models, then measure on test models."""
        ranked = self.rank_layers()
        closed_form = self.choose_closed_form(ranked[0])
        self.validate_variants(closed_form)
        probes = self.choose_probes(ranked)
        statistics_of_weights = self.choose_statistics()
        for seed in SEEDS:
            self.test_seed(closed_form, ranked[0], statistics_of_weights, seed)
        self.run_once("Loradex ahead of dense linear, all layers", partial(self.lead_over_dense, closed_form))
        for layer in self.data.layers:
            self.run_once(f"{layer} alone", partial(self.evaluate_layer, layer, 0, "test"))
        for name, (use_weights, recipe) in probes.items():
            for seed in SEEDS:
                self.run_once(f"{name}, seed {seed}", partial(self.evaluate_fit, use_weights, recipe, seed, "test"))
        for layer in self.data.layers:
            small = ExpertConfig(
                ProbeConfig((layer,), probes=64, projection=64, representation=256, standardise=True),
                replace(PROBE_TRAINING, epochs=100),
            )
            self.run_once(f"ProbeX of {layer} alone", partial(self.evaluate_fit, False, small, 0, "test"))

    def rank_layers(self) -> tuple[str, ...]:
        """All layers, those first from which a dense map predicts best."""
        accuracies = {
            layer: self.run_once(f"validation: {layer}", partial(self.evaluate_dense, [layer], 0, "val"))["value"]
            for layer in self.data.layers
        }
        return tuple(sorted(accuracies, key=lambda layer: -accuracies[layer]))

    def choose_closed_form(self, best_layer: str) -> ExpertConfig:
        """The best closed form with at most a tenth of the parameters of the dense map of all layers."""
        layers = self.data.layers
        dense = self.run_once("validation: dense linear, all layers", partial(self.evaluate_dense, layers, 0, "val"))
        accuracies = {}
        for name, config in closed_form_configs(layers):
            result = self.run_once(f"validation: {name}", partial(self.evaluate_fit, False, config, 0, "val"))
            if result["parameters"] <= MAX_PARAMETER_SHARE * dense["parameters"]:
                accuracies[name] = result["value"]
        best = max(accuracies, key=lambda name: accuracies[name])
        self.run_once("chosen", lambda: {"Loradex": best, "layer": best_layer})
        return dict(closed_form_configs(layers))[best]

    def validate_variants(self, closed_form: ExpertConfig) -> None:
        """Measure variants of the closed form on validation models."""
        variants = {
            "of the weights themselves": (True, closed_form),
            "as it ships": (False, shipped_config(self.data)),
            "with the quadratic view": (False, closed_form.with_settings(quadratic=0.5)),
        }
        for name, (use_weights, config) in variants.items():
            self.run_once(f"validation: {name}", partial(self.evaluate_fit, use_weights, config, 0, "val"))

    def choose_probes(self, ranked: tuple[str, ...]) -> dict[str, tuple[bool, ExpertConfig]]:
        """The best recipe of each kind of probes, and whether it reads the weights themselves."""
        chosen = {}
        for name, use_weights, recipes in probe_recipes(ranked):
            accuracies = [
                self.run_once(
                    f"validation: {name}, recipe {number}", partial(self.evaluate_fit, use_weights, recipe, 0, "val")
                )["value"]
                for number, recipe in enumerate(recipes if len(recipes) > 1 else [])
            ]
            chosen[name] = use_weights, recipes[int(np.argmax(accuracies)) if accuracies else 0]
        return chosen

    def choose_statistics(self) -> bool:
        """Whether statistics of the weights themselves do better than those of the differences."""
        of_weights, of_difference = (
            self.run_once(
                f"validation: statistics of {name}",
                partial(self.evaluate_statistics, use_weights, self.data.layers, 0, "val"),
            )["value"]
            for name, use_weights in (("the weights", True), ("the difference", False))
        )
        return of_weights >= of_difference

    def test_seed(self, closed_form: ExpertConfig, best_layer: str, statistics_of_weights: bool, seed: int) -> None:
        """Measure the closed forms and the baselines with one seed on test models."""
        layers = self.data.layers
        configs = {
            "Loradex": closed_form,
            "Loradex with principal directions": closed_form.with_settings(wide=None),
            "Loradex as it ships": shipped_config(self.data),
        }
        for name, config in configs.items():
            self.run_once(f"{name}, seed {seed}", partial(self.evaluate_fit, False, config, seed, "test"))
        for name, some in {"best layer": [best_layer], "all layers": layers}.items():
            self.run_once(f"dense linear, {name}, seed {seed}", partial(self.evaluate_dense, some, seed, "test"))
        self.run_once(
            f"weight statistics, seed {seed}",
            partial(self.evaluate_statistics, statistics_of_weights, layers, seed, "test"),
        )


def measure_categories(build: Build, tree: str) -> None:
    """Write ``categories-<tree>.json``."""
    data = ClassifierData(build, tree)
    log.info(
        "%s: distances to the ancestor %.2f to %.2f", tree, float(data.distances.min()), float(data.distances.max())
    )
    others = [
        name
        for name in TREES
        if TREES[name].family == TREES[tree].family and name != tree and (build / f"classifiers-{name}").exists()
    ]
    CategoryExperiments(build, data, ClassifierData(build, others[0], data.base) if others else None).run()
