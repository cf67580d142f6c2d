"""Step 6e: which categories a whole model was trained on, told from its weights by every encoder: chosen on validation models, read on test models.

Seeds draw nine tenths of the training models, and are those of probes. ProbeX and MVProbe as published read the weights themselves of their best layer;
those "of the difference" read the difference to the ancestor, of several layers where that is better.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from retrieval.baselines import WeightStatistics
from retrieval.evaluate import category_accuracy
from retrieval.lora import WholeModel
from retrieval.lora.header import Header
from retrieval.probex.categories import CategoryStudy, category_study, chosen_categories, files_by_split
from retrieval.probex.fit import ExpertConfig, fit
from retrieval.probex.labelled import pack_opened
from retrieval.probex.probes import ALL_VIEWS, ProbeConfig
from retrieval.probex.probing import Factors
from retrieval.probex.sketch import SketchConfig
from retrieval.probex.study import Aim
from scripts.miniature.classifiers import TREES
from scripts.miniature.settings import Build, atomic, log
from scripts.model_j.category_protocol import PUBLISHED, dense

SEEDS: Final = (0, 1, 2)
SHARE: Final = 0.9  # of the training models, which a seed takes
HEAD: Final = "classifier"  # in an order of its own in each model
PENALTIES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # of the dense map


class Classifiers:
    """One tree's models in memory, by their difference to the ancestor."""

    def __init__(self, build: Build, tree: str, ancestor: str | None = None) -> None:
        """Read all files; ``ancestor`` names another tree from whose ancestor the differences are taken."""
        self.tree, folder = tree, build / f"classifiers-{tree}"
        self.base = build / f"classifiers-{ancestor or tree}" / "ancestor" / "model.safetensors"
        files = files_by_split(folder)
        opened = [WholeModel.open(path, self.base, TREES[tree].family) for path, _ in files]
        self.layers = tuple(layer for layer in opened[0].shapes if not layer.startswith(HEAD))
        chosen = [chosen_categories(model.header.metadata) or () for model in opened]
        self.study = category_study(pack_opened(opened, self.layers), chosen, [split for _, split in files])
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
            up = torch.stack([weight + part.up.float() @ part.down.float() for part in map(study.models[layer].__getitem__, torch.arange(len(study.split)))])
            models[layer] = Factors.of_matrices(up.half())
        return CategoryStudy(models, study.members, study.split, study.names)

    def rows(self, seed: int) -> Tensor:
        """The training models of a seed."""
        rows = self.study.rows("train")
        kept = np.random.default_rng((seed, 9)).permutation(len(rows))[: round(SHARE * len(rows))]
        return rows[torch.from_numpy(np.sort(kept))]


def accuracy(study: CategoryStudy, rows: Tensor, scores: Tensor) -> dict[str, Any]:
    """What scores (models, categories) of some models are worth."""
    return asdict(category_accuracy(scores.double().numpy(), study.members[rows].numpy()))


def closed_forms(layers: tuple[str, ...]) -> Iterator[tuple[str, SketchConfig]]:
    """The closed forms that are tried on validation models."""
    for directions in (8, 16, 32):
        for quadratic in (0.0, 0.5):
            for ridge in (0.03, 0.1, 0.3, 1.0):
                yield f"{directions} directions, quadratic {quadratic}, ridge {ridge}", SketchConfig(layers, directions, directions, quadratic, ridge=ridge)
    for most in (8, 12, 16):
        for directions in (16, 24, 32):
            yield f"best {most} layers, {directions} directions", SketchConfig(layers, directions, directions, 0.0, ridge=0.05, most_layers=most)


class Measured:
    """What every encoder says of one tree; each result is kept as soon as it is there."""

    def __init__(self, build: Build, data: Classifiers, other: Classifiers | None) -> None:
        """``other`` are models of another ancestor, as differences to this tree's."""
        self.data, self.other, self.study = data, other, data.study
        self.path = build / f"categories-{data.tree}.json"
        self.found: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """A result, computed unless it is kept."""
        if name not in self.found:
            self.found[name] = work()
            with atomic(self.path) as path:
                path.write_text(json.dumps(self.found, indent=1))
            log.info("%s: %s: %s", self.data.tree, name, str(self.found[name])[:150])
        return self.found[name]

    def of_fit(self, study: CategoryStudy, config: ExpertConfig, seed: int, split: str) -> dict[str, Any]:
        """Fit with a seed, and read some models; at the end also those of another ancestor."""
        fitted = fit(study, self.data.rows(seed), config.changed(seed=seed) if isinstance(config.model, ProbeConfig) else config)
        rows = study.rows(split)
        found = accuracy(study, rows, fitted.scores(study.take(rows, config.model.layers))) | {"parameters": fitted.parameters}
        if self.other and study is self.study and split == "test":
            away = self.other.study
            rows = away.rows("test")
            found["across_trees"] = accuracy(away, rows, fitted.scores(away.take(rows, config.model.layers)))
        return found

    def of_dense(self, layers: Sequence[str], seed: int, split: str) -> dict[str, Any]:
        """A linear map from every weight of some layers, with the penalty that does best on validation models."""
        study = self.study
        best = dense(study, layers, self.data.rows(seed), PENALTIES)
        rows = study.rows(split)
        found = accuracy(study, rows, best.model.encode(study.take(rows, layers))) | {"parameters": best.parameters, "penalty": best.penalty}
        if self.other and split == "test":
            away = self.other.study
            rows = away.rows("test")
            found["across_trees"] = accuracy(away, rows, best.model.encode(away.take(rows, layers)))
        return found

    def of_statistics(self, seed: int) -> dict[str, Any]:
        """A small net over moments and quantiles of each layer's weights."""
        study, rows = self.data.plain, self.data.rows(seed)
        model = WeightStatistics.fit(study.take(rows), study.aims(rows, Aim.LABELS)[0], seed=seed)
        rows = study.rows("test")
        return accuracy(study, rows, model.encode(study.take(rows)))

    def layers(self) -> dict[str, dict[str, float]]:
        """What each layer alone says of validation models: by a dense linear map, and by our closed form of its difference."""
        judged, rows, found = self.study.judged, self.data.rows(0), {}
        for layer in self.data.layers:
            ours = fit(self.study, rows, ExpertConfig(SketchConfig((layer,), 32, 32, ridge=0.1)))
            said = self.study.merit(ours.scores(self.study.take(judged, [layer])), judged)
            found[layer] = {"closed form": said, "dense linear": self.of_dense([layer], 0, "val")["value"]}
        return found

    def run(self) -> None:
        """All of it, the choices first."""
        study, data = self.study, self.data
        by_layer = self.once("layers", self.layers)
        best = sorted(by_layer, key=lambda layer: -by_layer[layer]["dense linear"])
        tried = {}
        for name, config in closed_forms(data.layers):
            tried[name] = self.once(f"validation: {name}", partial(self.of_fit, study, ExpertConfig(config), 0, "val"))
        chosen = max(tried, key=lambda name: tried[name]["value"])
        self.once("chosen", lambda: chosen)
        ours = dict(closed_forms(data.layers))[chosen]
        nets = {
            "ProbeX as published": (data.plain, ProbeConfig(tuple(best[:1])), PUBLISHED),
            "ProbeX of the difference": (study, ProbeConfig(tuple(best[:1])), PUBLISHED),
            "MVProbe of the difference": (study, ProbeConfig(tuple(best[:1]), views=ALL_VIEWS, standardise=True), PUBLISHED),
            "ProbeX of the difference, 8 layers": (study, ProbeConfig(tuple(best[:8]), probes=32, projection=32), PUBLISHED),
        }
        for seed in SEEDS:
            self.once(f"Loradex, seed {seed}", partial(self.of_fit, study, ExpertConfig(ours), seed, "test"))
            self.once(f"dense linear, best layer, seed {seed}", partial(self.of_dense, best[:1], seed, "test"))
            self.once(f"dense linear, all layers, seed {seed}", partial(self.of_dense, data.layers, seed, "test"))
            self.once(f"weight statistics, seed {seed}", partial(self.of_statistics, seed))
            for name, (subject, model, training) in nets.items():
                self.once(f"{name}, seed {seed}", partial(self.of_fit, subject, ExpertConfig(model, training), seed, "test"))


def measure_categories(build: Build, tree: str) -> None:
    """Write ``categories-<tree>.json``."""
    data = Classifiers(build, tree)
    log.info("%s: distances to the ancestor %.2f to %.2f", tree, float(data.distances.min()), float(data.distances.max()))
    others = [name for name in TREES if TREES[name].family == TREES[tree].family and name != tree and (build / f"classifiers-{name}").exists()]
    Measured(build, data, Classifiers(build, others[0], tree) if others else None).run()
