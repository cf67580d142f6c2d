"""Step 6e: which categories a whole model was trained on, told from its weights by every encoder: chosen on validation models, read on test models.

Seeds draw nine tenths of the training models, and are those of probes. ProbeX and MVProbe as published read the weights themselves of their best layer;
"best recipe" reads the difference to the ancestor, of several layers where that is better.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

import numpy as np
import torch
from torch import Tensor

from retrieval.evaluate import Metric, summarise
from retrieval.lora import WholeModel
from retrieval.lora.header import Header
from retrieval.probex.categories import CategoryStudy, category_study, chosen_categories, files_by_split
from retrieval.probex.fit import ExpertConfig
from retrieval.probex.labelled import pack_opened
from retrieval.probex.probes import ProbeNet
from retrieval.probex.probing import Factors
from retrieval.probex.sketch import SketchConfig, SketchExpert, fit_ridge
from retrieval.probex.train import ProbeTraining
from scripts.miniature.classifiers import TREES
from scripts.miniature.settings import Build

SEEDS: Final = (0, 1, 2)
SHARE: Final = 0.9  # of the training models, which a seed takes
HEAD: Final = "classifier"  # in an order of its own in each model
RIDGES: Final = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
PUBLISHED: Final = ProbeTraining(epochs=500, lr=1e-3, weight_decay=1e-5, check_every=25, patience=1000)


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
            wide = up.shape[2] <= up.shape[1]
            eye = torch.eye(min(up.shape[1:])).half().expand(len(up), -1, -1)
            models[layer] = Factors(eye, up.half()) if wide else Factors(up.half(), eye)
        return CategoryStudy(models, study.members, study.split, study.names)

    def rows(self, seed: int) -> Tensor:
        """The training models of a seed."""
        rows = self.study.rows("train")
        kept = np.random.default_rng((seed, 9)).permutation(len(rows))[: round(SHARE * len(rows))]
        return rows[torch.from_numpy(np.sort(kept))]


def accuracy(scores: Tensor, members: Tensor) -> Metric:
    """The share of categories that are told rightly, with its interval over models."""
    right = ((scores > 0) == members).double().mean(1).numpy()
    return summarise(right, np.arange(len(right)), 0.5)


def parameters(model: SketchExpert | ProbeNet) -> int:
    """How many numbers an encoder has."""
    if isinstance(model, ProbeNet):
        return sum(parameter.numel() for parameter in model.parameters())
    parts = (model.left, model.right, model.mean, model.weight)
    return sum(tensor.numel() for part in parts for tensor in part.values()) + model.basis.numel()


def dense_linear(study: CategoryStudy, rows: Tensor, layers: Sequence[str], ridge: float) -> Callable[[Tensor], Tensor]:
    """Ridge regression from all weights of some layers; scores (models, categories) of models by row."""

    def flat(which: Tensor) -> Tensor:
        return torch.cat([(study.models[layer].up[which].float() @ study.models[layer].down[which].float()).flatten(1) for layer in layers], 1)

    known = flat(rows)
    mean, scale = known.mean(0), known.std().clamp_min(1e-9)
    weight = fit_ridge((known - mean) / scale, study.aims(rows, ExpertConfig(SketchConfig(())).aim)[0], ridge)
    return lambda which: (flat(which) - mean) / scale @ weight


def statistics(study: CategoryStudy, rows: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
    """Ridge regression from seven statistics of each layer: mean, deviation, and five quantiles of its difference to the ancestor."""
    levels = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])

    def said(which: Tensor) -> Tensor:
        parts = []
        for factors in study.models.values():
            flat = (factors.up[which].float() @ factors.down[which].float()).flatten(1)
            parts += [flat.mean(1, keepdim=True), flat.std(1, keepdim=True), flat.quantile(levels, dim=1).mT]
        return torch.cat(parts, 1)

    known = said(rows)
    mean, deviation = known.mean(0), known.std(0).clamp_min(1e-9)
    weight = fit_ridge((known - mean) / deviation, study.aims(rows, ExpertConfig(SketchConfig(())).aim)[0], ridge)
    return lambda which: (said(which) - mean) / deviation @ weight
