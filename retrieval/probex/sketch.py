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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.probex.alignment import alignment
from loradex.retrieval.probex.batched_factors import Factors, LayerFactors, energy, project, to_float32
from loradex.retrieval.probex.directions import BATCH, MIN_ENERGY, leading_eigenvectors, principal_directions
from loradex.retrieval.probex.ridge import fit_ridge, principal_outputs, solve_dual

SELECTION_RIDGE = 0.3  # of the regression that selects directions, as a multiple of the Gram matrix's mean eigenvalue

FeatureReader = Callable[[str], Tensor]  # gives the features (models, features) of a layer, all views side by side


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
        deviation: by layer (features,), the standard deviations in the training models; empty if they are not known.
    """

    config: SketchConfig
    left: dict[str, Tensor]
    right: dict[str, Tensor]
    mean: dict[str, Tensor]
    weight: dict[str, Tensor]
    basis: Tensor
    alignment: dict[str, float]
    deviation: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        models: LayerFactors,
        targets: Tensor,
        concepts: Tensor,
        config: SketchConfig,
        weights: Tensor | None = None,
        kinds: Tensor | None = None,
    ) -> "SketchRegression":
        """Fit to training models in memory.

        Args:
            models: the factors of each layer, by name.
            targets: this and the others as in ``fit_to_features``.
            concepts: (models,).
            config: of the sketches and of the map.
            weights: (models,).
            kinds: (models,).
        """
        left, right, features = {}, {}, {}
        for layer in config.layers:
            left[layer], right[layer] = select_directions(models[layer], targets, config)
            features[layer] = torch.cat(sketch(models[layer], left[layer], right[layer], config), 1)
        return fit_to_features(
            features.__getitem__, left, right, targets, concepts, config, weights=weights, kinds=kinds
        ).model

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

    def features(self, layer: str, factors: Factors) -> Tensor:
        """The features (models, features) of one layer, all views side by side."""
        return torch.cat(sketch(factors, self.left[layer], self.right[layer], self.config), 1)

    def predict(self, models: LayerFactors) -> Tensor:
        """Predictions (models, dim). A layer that the models lack counts as the mean of the training models."""
        present = [layer for layer in self.config.layers if layer in models]
        return self._map(present, lambda layer: self.features(layer, models[layer]) - self.mean[layer])

    def encode(self, models: LayerFactors) -> Tensor:
        """Unit vectors (models, dim) in the space."""
        return F.normalize(self.predict(models), dim=-1)

    def encode_features(self, read: FeatureReader, means: Mapping[str, Tensor] | None = None) -> Tensor:
        """Unit vectors (models, dim) of models whose features of all layers are known.

        Args:
            read: gives the features of a layer.
            means: by layer, (features,) or (models, features), in place of ``mean``.
        """
        means = means or self.mean
        return F.normalize(self._map(self.config.layers, lambda layer: read(layer) - means[layer]), dim=-1)

    def _map(self, layers: Sequence[str], centred: FeatureReader) -> Tensor:
        """Predictions (models, dim) from the centred features of some layers."""
        return torch.stack([centred(layer) @ self.weight[layer] for layer in layers]).sum(0) @ self.basis


@dataclass(frozen=True, slots=True)
class SketchFit:
    """A regression, and what only its training models tell.

    Attributes:
        vectors: (models, dim), unit vectors of the training models, each centred on the mean of its kind.
        means: by layer (kinds, features), the mean of each kind of training models.
    """

    model: SketchRegression
    vectors: Tensor
    means: dict[str, Tensor]


def fit_to_features(
    read: FeatureReader,
    left: Mapping[str, Tensor],
    right: Mapping[str, Tensor],
    targets: Tensor,
    concepts: Tensor,
    config: SketchConfig,
    *,
    weights: Tensor | None = None,
    kinds: Tensor | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SketchFit:
    """Fit a regression to the features of training models; those of one layer are in memory at a time.

    Args:
        read: gives the features of a layer; it is called three times for each.
        left: P by layer.
        right: Q by layer.
        targets: (models, dim), the vectors to predict.
        concepts: (models,), integers; models of one concept are left out together where alignment is measured.
        config: of the sketches and of the map.
        weights: (models,), how much the error of each model counts; by default all count the same.
        kinds: (models,), integers from 0. Models of each kind are centred on their own mean, since the updates of
            models that were made in another way differ in it; the mean of kind 0 is kept. By default all are of kind 0.
        progress: is called with the number of layers that are done, of all those to be gone over.
    """
    count = len(targets)
    weights = torch.ones(count) if weights is None else weights / weights.mean()
    kinds = torch.zeros(count, dtype=torch.int64) if kinds is None else kinds
    membership = F.one_hot(kinds).float() * weights[:, None]
    membership /= membership.sum(0).clamp_min(torch.finfo().tiny)  # each column averages over one kind
    means, deviations, alignments, scales = {}, {}, {}, {}
    for done, layer in enumerate(config.layers):
        features = read(layer)
        means[layer] = membership.mT @ features
        features = features - means[layer][kinds]
        deviations[layer] = (weights @ features.square() / count).sqrt()
        linear = len(left[layer]) * right[layer].shape[1]
        views = [view for view in features.tensor_split([linear], 1) if view.shape[1]]
        view_alignments = [max(alignment(view, targets, concepts, config.ridge), 0.0) for view in views]
        alignments[layer] = view_alignments[0]  # layers are ranked by the linear view, which every config has
        view_scales = scales_of_views(view_alignments, config)
        scales[layer] = torch.cat(
            [torch.full((view.shape[1],), scale) for view, scale in zip(views, view_scales, strict=True)]
        )
        progress(done + 1, 3 * len(config.layers))
    kept = best_layers(alignments, config)
    total = len(config.layers) + 2 * len(kept)

    def scaled(layer: str) -> Tensor:
        return (read(layer) - means[layer][kinds]) * scales[layer]

    gram = torch.zeros(count, count)
    for done, layer in enumerate(kept):
        features = scaled(layer)
        gram.addmm_(features, features.mT)
        progress(len(config.layers) + done + 1, total)
    roots = weights.sqrt()[:, None]
    coefficients = roots * solve_dual(roots * gram * roots.mT, roots * targets, config.ridge)
    predictions = gram @ coefficients
    basis = principal_outputs(roots * predictions, config.rank)
    coefficients @= basis.mT
    weight = {}
    for done, layer in enumerate(kept):
        weight[layer] = (scaled(layer).mT @ coefficients) * scales[layer][:, None]
        progress(len(config.layers) + len(kept) + done + 1, total)
    model = SketchRegression(
        replace(config, layers=kept, most_layers=None),
        {layer: left[layer] for layer in kept},
        {layer: right[layer] for layer in kept},
        {layer: means[layer][0] for layer in kept},
        weight,
        basis,
        {layer: alignments[layer] for layer in kept},
        {layer: deviations[layer] for layer in kept},
    )
    vectors = F.normalize(predictions @ basis.mT @ basis, dim=-1)
    return SketchFit(model, vectors, {layer: means[layer] for layer in kept})


def select_directions(factors: Factors, targets: Tensor, config: SketchConfig) -> tuple[Tensor, Tensor]:
    """Output directions P (outputs, out) and input directions Q (in, inputs) of a layer.

    These are the principal ones, or, of the first ``config.wide`` principal ones, the combinations that a ridge
    regression from the wide sketch to the targets (models, dim) uses most: the leading singular directions of its
    unfolded weight (outputs, inputs, dim) on both sides.
    """
    if config.wide is None:
        return principal_directions(factors, config.outputs, config.inputs)
    left, right = principal_directions(factors, config.wide, config.wide)
    wide_config = replace(config, outputs=config.wide, inputs=config.wide, quadratic=0.0)
    (view,) = sketch(factors, left, right, wide_config)
    weight = fit_ridge(view - view.mean(0), targets - targets.mean(0), SELECTION_RIDGE).reshape(
        len(left), right.shape[1], -1
    )
    output_combinations = leading_eigenvectors(torch.einsum("pqc,rqc->pr", weight, weight), config.outputs)
    input_combinations = leading_eigenvectors(torch.einsum("pqc,psc->qs", weight, weight), config.inputs)
    return output_combinations.mT @ left, right @ input_combinations


def sketch(factors: Factors, left: Tensor, right: Tensor, config: SketchConfig) -> list[Tensor]:
    """The views of one layer, as rows of features.

    P Z Q (models, outputs * inputs), and unless its weight is 0, the upper triangle of P Z Z^T P^T.
    """
    batches: list[list[Tensor]] = []
    for start in range(0, len(factors), BATCH):
        batch = to_float32(factors[start : start + BATCH])
        squared_norm = energy(batch).clamp_min(MIN_ENERGY)[:, None]
        projected = project(batch, left)
        views = [(projected.up @ (projected.down @ right)).flatten(1) / squared_norm.sqrt()]
        if config.quadratic:
            gram = projected.up @ (projected.down @ projected.down.mT) @ projected.up.mT
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
