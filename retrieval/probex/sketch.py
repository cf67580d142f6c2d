"""The closed-form expert: principal sketches of every layer's update, weighted by what each says, and one ridge regression to the space.

For each layer the principal output directions P of sum dW dW^T / |dW|^2 and input directions Q of sum dW^T dW / |dW|^2 over the training models are kept
(two-sided PCA, Ye 2005), or of more of them those that a regression to the targets uses. A model's sketch is P^T X Q, and P^T X X^T P (MVProbe's quadratic
view, in which the random start of ``down`` cancels out),
with X = dW / |dW|, both in factor form: the overall scale falls away.
Each layer and view counts by its cross-validated alignment with the targets. The regression's output is cut to the principal directions of
what it says of the training models (reduced-rank regression, Izenman 1975).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.probex.alignment import alignment
from loradex.retrieval.probex.batched_factors import Factors, bilinear, energy, input_spectrum, output_spectrum, widen

BATCH = 256  # models a step
CHOICE_RIDGE = 0.3  # of the regression by which directions are chosen, in mean eigenvalues


@dataclass(frozen=True, slots=True)
class SketchConfig:
    """What a sketch keeps and how the map to the space is fitted."""

    layers: tuple[str, ...]
    outputs: int = 24  # principal output directions a layer
    inputs: int = 24  # principal input directions a layer
    quadratic: float = 0.5  # the weight of P^T X X^T P beside P^T X Q; 0 leaves it out
    weighted: bool = True  # layers and views by their alignment, else all alike
    most_layers: int | None = None  # of those with the best alignment
    ridge: float = 0.3  # of the mean eigenvalue of the features' Gram matrix
    rank: int = 64  # of the map
    wide: int | None = (
        None  # principal directions a side, from which those that a regression to the targets uses are chosen
    )


@dataclass(frozen=True, slots=True)
class SketchExpert:
    """Sketches of many layers, and a linear map from them to the space.

    Attributes:
        left: for each layer (outputs, out); right: for each layer (in, inputs).
        mean: for each layer (features,), of the training models; weight: for each layer (features, rank).
        basis: (rank, dim).
        alignment: what each layer says of unseen concepts, from 0 to 1.
    """

    config: SketchConfig
    left: dict[str, Tensor]
    right: dict[str, Tensor]
    mean: dict[str, Tensor]
    weight: dict[str, Tensor]
    basis: Tensor
    alignment: dict[str, float]

    @classmethod
    def fit(
        cls, models: Mapping[str, Factors], targets: Tensor, concepts: Tensor, config: SketchConfig
    ) -> "SketchExpert":
        """Fit on training models of ``concepts`` (models,); ``targets`` (models, dim) are their vectors in the space."""
        left, right, features, scales, said = {}, {}, {}, {}, {}
        for layer in config.layers:
            left[layer], right[layer] = directions(models[layer], targets, config)
            views = sketch(models[layer], left[layer], right[layer], config)
            worth = [max(alignment(view, targets, concepts, config.ridge), 0.0) for view in views]
            said[layer] = worth[0]
            features[layer] = torch.cat(views, 1)
            scales[layer] = torch.cat(
                [
                    torch.full((view.shape[1],), scale)
                    for view, scale in zip(views, view_scales(worth, config), strict=True)
                ]
            )
        kept = best_layers(said, config)
        means = {layer: features[layer].mean(0) for layer in kept}
        scaled = torch.cat([(features[layer] - means[layer]) * scales[layer] for layer in kept], 1)
        weight = fit_ridge(scaled, targets, config.ridge)
        basis = principal_outputs(scaled @ weight, config.rank)
        weights = (weight @ basis.mT).split([len(scales[layer]) for layer in kept])
        return cls(
            replace(config, layers=kept, most_layers=None),
            {layer: left[layer] for layer in kept},
            {layer: right[layer] for layer in kept},
            means,
            {layer: part * scales[layer][:, None] for layer, part in zip(kept, weights, strict=True)},
            basis,
            {layer: said[layer] for layer in kept},
        )

    @property
    def device(self) -> str:
        """Where the weights are."""
        return str(self.basis.device)

    def to(self, device: str) -> "SketchExpert":
        """The same expert on a device."""
        left, right, mean, weight = (
            {layer: t.to(device) for layer, t in part.items()}
            for part in (self.left, self.right, self.mean, self.weight)
        )
        return replace(self, left=left, right=right, mean=mean, weight=weight, basis=self.basis.to(device))

    def predict(self, models: Mapping[str, Factors]) -> Tensor:
        """What the regression says (models, dim). A layer that the models lack counts as the average of the training models."""
        there = [layer for layer in self.config.layers if layer in models]
        said = [self._say(layer, models[layer]) for layer in there]
        return torch.stack(said).sum(0) @ self.basis

    def encode(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit vectors (models, dim) in the space."""
        return F.normalize(self.predict(models), dim=-1)

    def _say(self, layer: str, factors: Factors) -> Tensor:
        """What one layer adds (models, rank)."""
        features = torch.cat(sketch(factors, self.left[layer], self.right[layer], self.config), 1)
        return (features - self.mean[layer]) @ self.weight[layer]


def directions(factors: Factors, targets: Tensor, config: SketchConfig) -> tuple[Tensor, Tensor]:
    """Output directions (outputs, out) and input directions (in, inputs) of a layer: principal ones, or of ``wide`` of them those that say most of the targets.

    The latter are the leading singular directions, on both sides, of a ridge regression from the wide sketch to the targets (models, dim), unfolded.
    """
    if config.wide is None:
        return principal_directions(factors, config)
    many = replace(config, outputs=config.wide, inputs=config.wide, quadratic=0.0)
    left, right = principal_directions(factors, many)
    (view,) = sketch(factors, left, right, many)
    weight = fit_ridge(view - view.mean(0), targets - targets.mean(0), CHOICE_RIDGE).reshape(
        len(left), right.shape[1], -1
    )
    outputs = leading(torch.einsum("pqc,rqc->pr", weight, weight), config.outputs)
    inputs = leading(torch.einsum("pqc,psc->qs", weight, weight), config.inputs)
    return outputs.mT @ left, right @ inputs


def leading(spectrum: Tensor, count: int) -> Tensor:
    """The leading eigenvectors (n, count) of a symmetric matrix (n, n), fewer where it has fewer."""
    found: Tensor = torch.linalg.eigh(spectrum).eigenvectors.flip(1)[:, :count]
    return found


def principal_directions(factors: Factors, config: SketchConfig) -> tuple[Tensor, Tensor]:
    """Leading output directions (outputs, out) and input directions (in, inputs) of a layer's updates."""
    spectra = [
        torch.zeros(factors.up.shape[1], factors.up.shape[1]),
        torch.zeros(factors.down.shape[2], factors.down.shape[2]),
    ]
    for start in range(0, len(factors), BATCH):
        batch = widen(factors[start : start + BATCH])
        weights = 1 / energy(batch).clamp_min(1e-20)
        spectra[0] += output_spectrum(batch, weights)
        spectra[1] += input_spectrum(batch, weights)
    return leading(spectra[0], config.outputs).mT.contiguous(), leading(spectra[1], config.inputs)


def sketch(factors: Factors, left: Tensor, right: Tensor, config: SketchConfig) -> list[Tensor]:
    """The views of one layer: P^T X Q (models, outputs * inputs), and the upper triangle of P^T X X^T P unless its weight is 0."""
    parts: list[list[Tensor]] = []
    for start in range(0, len(factors), BATCH):
        batch = widen(factors[start : start + BATCH])
        squared = energy(batch).clamp_min(1e-20)[:, None]
        views = [bilinear(batch, left, right).flatten(1) / squared.sqrt()]
        if config.quadratic:
            outer = left @ batch.up
            views.append(upper_triangle(outer @ (batch.down @ batch.down.mT) @ outer.mT) / squared)
        parts.append(views)
    return [torch.cat(view) for view in zip(*parts, strict=True)]


def upper_triangle(matrices: Tensor) -> Tensor:
    """Symmetric matrices (n, p, p) as vectors (n, p (p + 1) / 2) of the same length and inner products."""
    rows, columns = torch.triu_indices(*matrices.shape[1:])
    return matrices[:, rows, columns] * torch.where(rows == columns, 1.0, 2**0.5)


def view_scales(worth: Sequence[float], config: SketchConfig) -> list[float]:
    """What the features of each view are multiplied by: roots of the weights of their inner products."""
    weights = (1.0, config.quadratic)[: len(worth)]
    return [(weight * (said if config.weighted else 1.0)) ** 0.5 for weight, said in zip(weights, worth, strict=True)]


def best_layers(said: Mapping[str, float], config: SketchConfig) -> tuple[str, ...]:
    """The layers with the best alignment, in the order of the config."""
    best = set(sorted(config.layers, key=lambda layer: -said[layer])[: config.most_layers])
    return tuple(layer for layer in config.layers if layer in best)


def fit_ridge(features: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """Weights (features, dim) that minimise |features W - targets|^2 + penalty |W|^2, by the dual (models x models) system."""
    gram = features @ features.mT
    penalty = (ridge * gram.diagonal().mean()).clamp_min(
        1e-12
    )  # where no layer says anything, neither does the regression
    return features.mT @ torch.linalg.solve(gram + penalty * torch.eye(len(gram)), targets)


def principal_outputs(predictions: Tensor, rank: int) -> Tensor:
    """The leading directions (rank, dim) of predictions (models, dim), fewer where they span fewer."""
    return torch.linalg.svd(predictions, full_matrices=False).Vh[:rank]
