"""Step 6e: which categories a whole model was trained on, told from its weights by every encoder: chosen on validation models, read on test models.

Seeds draw nine tenths of the training models, and are those of probes. ProbeX and MVProbe as published read the weights themselves of their best layer;
those "of the difference" read the difference to the ancestor, with the recipe that does best on validation models. All end after a hundred epochs that brought
nothing.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.lora import WholeModel
from loradex.retrieval.lora.header import Header
from loradex.retrieval.measure.baselines import WeightStatistics
from loradex.retrieval.measure.metrics import summarise
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.probes import ProbeConfig
from loradex.retrieval.probex.sketch import SketchConfig
from loradex.retrieval.training.category_dataset import CategoryStudy, category_study, find_classifiers
from loradex.retrieval.training.concept_dataset import Aim
from loradex.retrieval.training.fit import PUBLISHED_CATEGORIES, ExpertConfig, fit, mvprobe, probex
from loradex.retrieval.training.labelled_loras import pack_opened
from scripts.miniature.classifiers import TREES
from scripts.miniature.settings import Build, atomic, log
from scripts.model_j.category_protocol import dense, told

SEEDS: Final = (0, 1, 2)
SHARE: Final = 0.9  # of the training models, which a seed takes
HEAD: Final = "classifier"  # in an order of its own in each model
PENALTIES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # of the dense map
LEAST: Final = 0.1  # of the dense map's parameters, which ours may have
TRAINING: Final = replace(PUBLISHED_CATEGORIES, patience=4)  # of probes: until a hundred epochs bring nothing
EPOCHS: Final = 200  # at the most, of MVProbe in its published size, which takes minutes for a hundred; half of them on the weights as they are
MANY: Final = 8  # layers of probes that read several
LAYERS: Final = 4  # of what ships, the best
DIRECTIONS: Final = 24  # a side
WIDE: Final = 128  # principal directions from which others are chosen
SMALL: Final = 48 * 432  # weights of a layer, at the most


class Classifiers:
    """One tree's models in memory, by their difference to the ancestor."""

    def __init__(self, build: Build, tree: str, base: Path | None = None) -> None:
        """Read all files; ``base`` are other weights than the ancestor's, from which the differences are taken."""
        self.tree, folder = tree, build / f"classifiers-{tree}"
        self.base = base or folder / "ancestor" / "model.safetensors"
        found = find_classifiers(folder)
        opened = [WholeModel.open(model.path, self.base, TREES[tree].family) for model in found]
        self.layers = tuple(layer for layer in opened[0].shapes if not layer.startswith(HEAD))
        self.study = category_study(pack_opened(opened, self.layers), found)
        self.distances = torch.tensor([model.distance(self.layers) for model in opened])
        self.opened = opened

    @cached_property
    def plain(self) -> CategoryStudy:
        """The same models by their weights alone."""
        root, study = Header.read(self.base), self.study
        models = {}
        for layer in self.layers:
            first = root.load([self.opened[0].tensors[layer][1]])
            weight = next(iter(first.values())).float().flatten(1)
            up = torch.stack(
                [
                    weight + part.up.float() @ part.down.float()
                    for part in map(study.models[layer].__getitem__, torch.arange(len(study.split)))
                ]
            )
            models[layer] = Factors.of_matrices(up.half())
        return CategoryStudy(models, study.members, study.split, study.names)

    def rows(self, seed: int) -> Tensor:
        """The training models of a seed."""
        rows = self.study.rows("train")
        kept = np.random.default_rng((seed, 9)).permutation(len(rows))[: round(SHARE * len(rows))]
        return rows[torch.from_numpy(np.sort(kept))]


def shipped(data: Classifiers) -> ExpertConfig:
    """The expert that fits into what ships, beside some models' layers."""
    layers = tuple(layer for layer in data.layers if math.prod(data.opened[0].shapes[layer]) <= SMALL)
    return ExpertConfig(
        SketchConfig(layers, DIRECTIONS, DIRECTIONS, quadratic=0.0, ridge=0.05, most_layers=LAYERS, wide=WIDE)
    )


def closed_forms(layers: tuple[str, ...]) -> Iterator[tuple[str, ExpertConfig]]:
    """The closed forms that are tried on validation models."""
    for most in (4, 6, 8, 12, len(layers)):
        for directions in (16, 24, 32, 48):
            for ridge in (0.03, 0.1):
                if most <= len(layers):
                    for wide in (None, WIDE):
                        name = (
                            f"best {most} layers, {directions} directions{f' of {wide}' if wide else ''}, ridge {ridge}"
                        )
                        yield (
                            name,
                            ExpertConfig(
                                SketchConfig(
                                    layers,
                                    directions,
                                    directions,
                                    quadratic=0.0,
                                    ridge=ridge,
                                    most_layers=most,
                                    wide=wide,
                                )
                            ),
                        )


def nets(best: tuple[str, ...]) -> Iterator[tuple[str, bool, list[ExpertConfig]]]:
    """Probes of the ``best`` layer or several: their name, whether they read weights as they are, and the recipes from which validation models choose."""
    layer = best[0]
    one, four = probex(layer).model, mvprobe(layer).model
    assert isinstance(one, ProbeConfig) and isinstance(four, ProbeConfig)
    small = replace(four, probes=64, projection=64, representation=256)
    fast, slow, brief = replace(TRAINING, lr=3e-3), replace(TRAINING, lr=3e-4), replace(TRAINING, epochs=EPOCHS)
    yield "ProbeX as published", True, [ExpertConfig(one, TRAINING)]
    even = replace(one, standardise=True)
    yield (
        "ProbeX of the difference",
        False,
        [ExpertConfig(model, training) for model in (one, even) for training in (TRAINING, fast)],
    )
    own = [ExpertConfig(small, TRAINING), ExpertConfig(small, slow), ExpertConfig(four, brief)]
    yield "MVProbe of the difference", False, own
    several = ProbeConfig(best[:MANY], probes=64, projection=64, representation=256, standardise=True)
    yield f"ProbeX of the difference, best {MANY} layers", False, [ExpertConfig(several, TRAINING)]
    yield "MVProbe as published", True, [ExpertConfig(four, replace(brief, epochs=EPOCHS // 2))]


class Measured:
    """What every encoder says of one tree; each result is kept as soon as it is there."""

    def __init__(self, build: Build, data: Classifiers, other: Classifiers | None) -> None:
        """``other`` are models of another ancestor, as differences to this tree's."""
        self.data, self.other, self.study = data, other, data.study
        self.path = build / f"categories-{data.tree}.json"

    def kept(self) -> dict[str, Any]:
        """What is measured so far, by this process or another."""
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """A result, computed unless it is kept."""
        if name not in self.kept():
            found = work()
            with atomic(self.path) as path:
                path.write_text(json.dumps(self.kept() | {name: found}, indent=1))
            log.info("%s: %s: %s", self.data.tree, name, str(found)[:150])
        return self.kept()[name]

    def of_fit(self, plain: bool, config: ExpertConfig, seed: int, split: str) -> dict[str, Any]:
        """Fit with a seed, on differences or on the weights as they are, and read some models; at the end also those of another ancestor."""
        study = self.data.plain if plain else self.study
        fitted = fit(
            study, self.data.rows(seed), config.changed(seed=seed) if isinstance(config.model, ProbeConfig) else config
        )

        def said(of: CategoryStudy) -> dict[str, Any]:
            rows = of.rows(split)
            return told(of, rows, fitted.scores(of.take(rows, fitted.model.config.layers)))

        found = said(study) | {"parameters": fitted.parameters}
        if self.other and split == "test":
            found["across_trees"] = said(self.other.plain if plain else self.other.study)
        return found

    def of_dense(self, layers: Sequence[str], seed: int, split: str) -> dict[str, Any]:
        """A linear map from every weight of some layers, with the penalty that does best on validation models."""
        best = dense(self.study, layers, self.data.rows(seed), PENALTIES)

        def said(of: CategoryStudy) -> dict[str, Any]:
            rows = of.rows(split)
            return told(of, rows, best.model.encode(of.take(rows, layers)))

        found = said(self.study) | {"parameters": best.parameters, "penalty": best.penalty}
        if self.other and split == "test":
            found["across_trees"] = said(self.other.study)
        return found

    def of_statistics(self, plain: bool, layers: Sequence[str], seed: int, split: str) -> dict[str, Any]:
        """A small net over moments and quantiles of some layers, of their differences or of the weights as they are."""
        study, rows = self.data.plain if plain else self.study, self.data.rows(seed)
        model = WeightStatistics.fit(study.take(rows, layers), study.aims(rows, Aim.LABELS)[0], seed=seed)
        rows = study.rows(split)
        return told(study, rows, model.encode(study.take(rows, layers)))

    def lead(self, config: ExpertConfig) -> dict[str, Any]:
        """How many more categories a test model ours tells rightly than the dense map of all layers, over all seeds, with the interval over models."""
        rows, gained = self.study.rows("test"), []
        truth, unseen = self.study.members[rows], self.study.take(rows)
        for seed in SEEDS:
            ours = fit(self.study, self.data.rows(seed), config).scores(unseen)
            theirs = dense(self.study, self.data.layers, self.data.rows(seed), PENALTIES).model.encode(unseen)
            gained.append((((ours > 0) == truth).float() - ((theirs > 0) == truth).float()).mean(1).double().numpy())
        return asdict(summarise(np.mean(gained, 0), np.arange(len(rows)), 0.0))

    def of_layer(self, layer: str, seed: int, split: str) -> dict[str, dict[str, Any]]:
        """What one layer alone says, by every kind of encoder that takes seconds."""
        return {
            "closed form": self.of_fit(
                False, ExpertConfig(SketchConfig((layer,), 32, 32, quadratic=0.0, ridge=0.05, wide=WIDE)), seed, split
            ),
            "dense linear": self.of_dense([layer], seed, split),
            "weight statistics": self.of_statistics(True, [layer], seed, split),
        }

    def run(self) -> None:
        """All of it: the choices, by validation models, and then what they say of test models."""
        data = self.data
        by_layer = {
            layer: self.once(f"validation: {layer}", partial(self.of_dense, [layer], 0, "val"))["value"]
            for layer in data.layers
        }
        ranked = tuple(sorted(by_layer, key=lambda layer: -by_layer[layer]))
        best = ranked[0]
        whole = self.once("validation: dense linear, all layers", partial(self.of_dense, data.layers, 0, "val"))
        tried = {}
        for name, config in closed_forms(data.layers):
            found = self.once(f"validation: {name}", partial(self.of_fit, False, config, 0, "val"))
            if found["parameters"] <= LEAST * whole["parameters"]:
                tried[name] = found["value"]
        chosen = max(tried, key=lambda name: tried[name])
        self.once("chosen", lambda: {"Loradex": chosen, "layer": best})
        ours = dict(closed_forms(data.layers))[chosen]
        self.once("validation: of the weights themselves", partial(self.of_fit, True, ours, 0, "val"))
        self.once("validation: as it ships", partial(self.of_fit, False, shipped(data), 0, "val"))
        self.once(
            "validation: with the quadratic view", partial(self.of_fit, False, ours.changed(quadratic=0.5), 0, "val")
        )
        probes = {}
        for name, plain, recipes in nets(ranked):
            worth = [
                self.once(f"validation: {name}, recipe {number}", partial(self.of_fit, plain, recipe, 0, "val"))[
                    "value"
                ]
                for number, recipe in enumerate(recipes if len(recipes) > 1 else [])
            ]
            probes[name] = plain, recipes[int(np.argmax(worth)) if worth else 0]
        numbers = {}
        for plain in (True, False):
            of = "the weights" if plain else "the difference"
            numbers[plain] = self.once(
                f"validation: statistics of {of}", partial(self.of_statistics, plain, data.layers, 0, "val")
            )["value"]
        for seed in SEEDS:
            self.once(f"Loradex, seed {seed}", partial(self.of_fit, False, ours, seed, "test"))
            self.once(
                f"Loradex with principal directions, seed {seed}",
                partial(self.of_fit, False, ours.changed(wide=None), seed, "test"),
            )
            self.once(f"Loradex as it ships, seed {seed}", partial(self.of_fit, False, shipped(data), seed, "test"))
            self.once(f"dense linear, best layer, seed {seed}", partial(self.of_dense, [best], seed, "test"))
            self.once(f"dense linear, all layers, seed {seed}", partial(self.of_dense, data.layers, seed, "test"))
            self.once(
                f"weight statistics, seed {seed}",
                partial(self.of_statistics, numbers[True] >= numbers[False], data.layers, seed, "test"),
            )
        self.once("Loradex ahead of dense linear, all layers", partial(self.lead, ours))
        for layer in data.layers:
            self.once(f"{layer} alone", partial(self.of_layer, layer, 0, "test"))
        for name, (plain, recipe) in probes.items():
            for seed in SEEDS:
                self.once(f"{name}, seed {seed}", partial(self.of_fit, plain, recipe, seed, "test"))
        for layer in data.layers:
            small = ExpertConfig(
                ProbeConfig((layer,), probes=64, projection=64, representation=256, standardise=True),
                replace(TRAINING, epochs=100),
            )
            self.once(f"ProbeX of {layer} alone", partial(self.of_fit, False, small, 0, "test"))


def measure_categories(build: Build, tree: str) -> None:
    """Write ``categories-<tree>.json``."""
    data = Classifiers(build, tree)
    log.info(
        "%s: distances to the ancestor %.2f to %.2f", tree, float(data.distances.min()), float(data.distances.max())
    )
    others = [
        name
        for name in TREES
        if TREES[name].family == TREES[tree].family and name != tree and (build / f"classifiers-{name}").exists()
    ]
    Measured(build, data, Classifiers(build, others[0], data.base) if others else None).run()
