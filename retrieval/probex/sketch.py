"""The closed-form model inside an expert: sketches of every layer's update, and one ridge regression to the space.

With Z = dW / |dW| (out x in), so that the scale of an update does not matter, and for each layer

    P  (outputs, out): leading eigenvectors of the sum of Z Z^T over the training models, as rows; ``left`` in the code
    Q  (in, inputs):   leading eigenvectors of the sum of Z^T Z, as columns; ``right`` in the code

(two-sided PCA, Ye 2005), the sketch of a model is P Z Q, and P Z Z^T P^T: MVProbe's quadratic view, in which the random
initial values of ``down`` cancel out. With ``SketchConfig.wide``, P and Q are chosen from the first ``wide`` principal
directions: the combinations that a ridge regression to the targets uses most. All is computed in factor form.

Each layer and view is weighted by its cross-validated alignment with the targets. The output of the regression is cut
to the principal directions of its predictions for the training models (reduced-rank regression, Izenman 1975).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.probex.alignment import alignment
from loradex.retrieval.probex.batched_factors import (
    Factors,
    LayerFactors,
    bilinear,
    energy,
    input_spectrum,
    output_spectrum,
    to_float32,
)

BATCH = 256  # models
SELECTION_RIDGE = 0.3  # of the regression that selects directions, as a multiple of the Gram matrix's mean eigenvalue


@dataclass(frozen=True, slots=True)
class SketchConfig:
    """What a sketch keeps of a layer, and how the map to the space is fitted."""

    layers: tuple[str, ...]
    outputs: int = 24  # output directions of each layer
    inputs: int = 24  # input directions of each layer
    quadratic: float = 0.5  # weight of P Z Z^T P^T relative to P Z Q; 0 leaves it out
    weighted: bool = True  # weight layers and views by their alignment; otherwise all count the same
    most_layers: int | None = None  # keep only so many layers, those with the best alignment
    ridge: float = 0.3  # penalty, as a multiple of the mean eigenvalue of the features' Gram matrix
    rank: int = 64  # of the map
    wide: int | None = None  # principal directions of each side to select from; None keeps the leading ones


@dataclass(frozen=True, slots=True)
class SketchRegression:
    """Sketches of many layers, and a linear map from them to the space.

    Attributes:
        left: P by layer (outputs, out).
        right: Q by layer (in, inputs).
        mean: by layer (features,), of the training models.
        weight: by layer (features, rank).
        basis: (rank, dim), principal directions of the predictions.
        alignment: by layer, how well its linear view P Z Q predicts the targets of unseen concepts, from 0 to 1.
    """

    config: SketchConfig
    left: dict[str, Tensor]
    right: dict[str, Tensor]
    mean: dict[str, Tensor]
    weight: dict[str, Tensor]
    basis: Tensor
    alignment: dict[str, float]

    @classmethod
    def fit(cls, models: LayerFactors, targets: Tensor, concepts: Tensor, config: SketchConfig) -> "SketchRegression":
        """Fit to training models.

        Args:
            models: the factors of each layer, by name.
            targets: (models, dim), the vectors to predict.
            concepts: (models,), integers; models of one concept are left out together where alignment is measured.
            config: of the sketches and of the map.
        """
        left, right, features, scales, alignments = {}, {}, {}, {}, {}
        for layer in config.layers:
            left[layer], right[layer] = select_directions(models[layer], targets, config)
            views = sketch(models[layer], left[layer], right[layer], config)
            view_alignments = [max(alignment(view, targets, concepts, config.ridge), 0.0) for view in views]
            alignments[layer] = view_alignments[0]  # layers are ranked by the linear view, which every config has
            features[layer] = torch.cat(views, 1)
            view_scales = scales_of_views(view_alignments, config)
            scales[layer] = torch.cat(
                [torch.full((view.shape[1],), scale) for view, scale in zip(views, view_scales, strict=True)]
            )
        kept = best_layers(alignments, config)
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
            {layer: alignments[layer] for layer in kept},
        )

    @property
    def device(self) -> str:
        """The device of the weights."""
        return str(self.basis.device)

    def to(self, device: str) -> "SketchRegression":
        """Return the regression on a device."""
        left, right, mean, weight = (
            {layer: tensor.to(device) for layer, tensor in by_layer.items()}
            for by_layer in (self.left, self.right, self.mean, self.weight)
        )
        return replace(self, left=left, right=right, mean=mean, weight=weight, basis=self.basis.to(device))

    def predict(self, models: LayerFactors) -> Tensor:
        """Predictions (models, dim). A layer that the models lack counts as the mean of the training models."""
        present = [layer for layer in self.config.layers if layer in models]
        return torch.stack([self._contribution(layer, models[layer]) for layer in present]).sum(0) @ self.basis

    def encode(self, models: LayerFactors) -> Tensor:
        """Unit vectors (models, dim) in the space."""
        return F.normalize(self.predict(models), dim=-1)

    def _contribution(self, layer: str, factors: Factors) -> Tensor:
        """The summand (models, rank) of one layer."""
        features = torch.cat(sketch(factors, self.left[layer], self.right[layer], self.config), 1)
        return (features - self.mean[layer]) @ self.weight[layer]


def select_directions(factors: Factors, targets: Tensor, config: SketchConfig) -> tuple[Tensor, Tensor]:
    """Output directions P (outputs, out) and input directions Q (in, inputs) of a layer.

    These are the principal ones, or, of the first ``config.wide`` principal ones, the combinations that a ridge
    regression from the wide sketch to the targets (models, dim) uses most: the leading singular directions of its
    unfolded weight (outputs, inputs, dim) on both sides.
    """
    if config.wide is None:
        return principal_directions(factors, config)
    wide_config = replace(config, outputs=config.wide, inputs=config.wide, quadratic=0.0)
    left, right = principal_directions(factors, wide_config)
    (view,) = sketch(factors, left, right, wide_config)
    weight = fit_ridge(view - view.mean(0), targets - targets.mean(0), SELECTION_RIDGE).reshape(
        len(left), right.shape[1], -1
    )
    output_combinations = leading_eigenvectors(torch.einsum("pqc,rqc->pr", weight, weight), config.outputs)
    input_combinations = leading_eigenvectors(torch.einsum("pqc,psc->qs", weight, weight), config.inputs)
    return output_combinations.mT @ left, right @ input_combinations


def leading_eigenvectors(matrix: Tensor, count: int) -> Tensor:
    """The leading eigenvectors (n, count) of a symmetric matrix (n, n); at most n."""
    eigenvectors: Tensor = torch.linalg.eigh(matrix).eigenvectors.flip(1)[:, :count]
    return eigenvectors


def principal_directions(factors: Factors, config: SketchConfig) -> tuple[Tensor, Tensor]:
    """Leading output directions (outputs, out) and input directions (in, inputs) of a layer's updates at unit norm."""
    out, width = factors.up.shape[1], factors.down.shape[2]
    output_sum, input_sum = torch.zeros(out, out), torch.zeros(width, width)  # of Z Z^T, and of Z^T Z
    for start in range(0, len(factors), BATCH):
        batch = to_float32(factors[start : start + BATCH])
        weights = 1 / energy(batch).clamp_min(1e-20)
        output_sum += output_spectrum(batch, weights)
        input_sum += input_spectrum(batch, weights)
    output_directions = leading_eigenvectors(output_sum, config.outputs).mT.contiguous()
    return output_directions, leading_eigenvectors(input_sum, config.inputs)


def sketch(factors: Factors, left: Tensor, right: Tensor, config: SketchConfig) -> list[Tensor]:
    """The views of one layer, as rows of features.

    P Z Q (models, outputs * inputs), and unless its weight is 0, the upper triangle of P Z Z^T P^T.
    """
    batches: list[list[Tensor]] = []
    for start in range(0, len(factors), BATCH):
        batch = to_float32(factors[start : start + BATCH])
        squared_norm = energy(batch).clamp_min(1e-20)[:, None]
        views = [bilinear(batch, left, right).flatten(1) / squared_norm.sqrt()]
        if config.quadratic:
            projected = left @ batch.up
            gram = projected @ (batch.down @ batch.down.mT) @ projected.mT
            views.append(upper_triangle(gram) / squared_norm)
        batches.append(views)
    return [torch.cat(view) for view in zip(*batches, strict=True)]


def upper_triangle(matrices: Tensor) -> Tensor:
    """Symmetric matrices (n, p, p) as vectors (n, p (p + 1) / 2) with the same norms and inner products."""
    rows, columns = torch.triu_indices(*matrices.shape[1:])
    return matrices[:, rows, columns] * torch.where(rows == columns, 1.0, 2**0.5)


def scales_of_views(alignments: Sequence[float], config: SketchConfig) -> list[float]:
    """The multiplier of each view's features: the square root of the weight of their inner products."""
    weights = (1.0, config.quadratic)[: len(alignments)]
    return [
        (weight * (score if config.weighted else 1.0)) ** 0.5 for weight, score in zip(weights, alignments, strict=True)
    ]


def best_layers(alignments: Mapping[str, float], config: SketchConfig) -> tuple[str, ...]:
    """The ``config.most_layers`` layers with the best alignment, in the order of the config."""
    best = set(sorted(config.layers, key=lambda layer: -alignments[layer])[: config.most_layers])
    return tuple(layer for layer in config.layers if layer in best)


def fit_ridge(features: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """Weights W (features, dim) that minimise |features W - targets|^2 + penalty |W|^2.

    Solved in the dual, a system (models x models). The penalty is ``ridge`` times the Gram matrix's mean eigenvalue.
    """
    gram = features @ features.mT
    penalty = (ridge * gram.diagonal().mean()).clamp_min(1e-12)  # solvable even if all features are zero
    return features.mT @ torch.linalg.solve(gram + penalty * torch.eye(len(gram)), targets)


def principal_outputs(predictions: Tensor, rank: int) -> Tensor:
    """The leading directions (rank, dim) of predictions (models, dim); fewer if they span fewer."""
    return torch.linalg.svd(predictions, full_matrices=False).Vh[:rank]
