"""The closed-form expert: two-sided principal sketches of every layer's update, and one ridge regression to text space.

For each layer, the principal output directions P of sum dW dW^T / |dW|^2 and input directions Q of sum dW^T dW / |dW|^2
over the training models are kept (two-sided PCA, Ye 2005). A model's sketch is P^T dW Q / |dW|, in factor form
(P^T up)(down Q): directions that only carry the random start of ``down`` fall away, and so does the overall scale.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.probex.probing import Factors, bilinear, energy, input_spectrum, output_spectrum

BATCH = 256  # models a step


@dataclass(frozen=True, slots=True)
class SketchConfig:
    """What a sketch keeps and how the map to text space is fitted."""

    layers: tuple[str, ...]
    outputs: int = 16  # principal output directions a layer
    inputs: int = 16  # principal input directions a layer
    whitening: float = 0.0  # power of the singular values that directions are divided by
    ridge: float = 1e-2  # of the mean eigenvalue of the features' Gram matrix


@dataclass(frozen=True, slots=True)
class SketchExpert:
    """Sketches of many layers, and a linear map from them to the space.

    Attributes:
        left: for each layer (outputs, out); right: for each layer (in, inputs).
        mean: (features,); weight: (features, dim).
    """

    config: SketchConfig
    left: dict[str, Tensor]
    right: dict[str, Tensor]
    mean: Tensor
    weight: Tensor

    @classmethod
    def fit(cls, models: Mapping[str, Factors], targets: Tensor, config: SketchConfig) -> "SketchExpert":
        """Fit on training models; ``targets`` (models, dim) are their concepts' vectors in the space."""
        left, right = {}, {}
        for layer in config.layers:
            left[layer], right[layer] = principal_directions(models[layer], config)
        features = sketch(models, config.layers, left, right)
        mean = features.mean(0)
        return cls(config, left, right, mean, fit_ridge(features - mean, targets, config.ridge))

    def encode(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit vectors (models, dim) in the space."""
        features = sketch(models, self.config.layers, self.left, self.right)
        return F.normalize((features - self.mean) @ self.weight, dim=-1)


def principal_directions(factors: Factors, config: SketchConfig) -> tuple[Tensor, Tensor]:
    """Leading output directions (outputs, out) and input directions (in, inputs) of a layer's updates."""
    spectra = [torch.zeros(factors.up.shape[1], factors.up.shape[1]), torch.zeros(factors.down.shape[2], factors.down.shape[2])]
    for start in range(0, len(factors), BATCH):
        batch = widen(factors[start : start + BATCH])
        weights = 1 / energy(batch).clamp_min(1e-20)
        spectra[0] += output_spectrum(batch, weights)
        spectra[1] += input_spectrum(batch, weights)
    kept = []
    for spectrum, count in zip(spectra, (config.outputs, config.inputs), strict=True):
        values, vectors = torch.linalg.eigh(spectrum / len(factors))
        values, vectors = values.flip(0)[:count].clamp_min(1e-12), vectors.flip(1)[:, :count]
        kept.append(vectors * (values / values[0]) ** (-config.whitening / 2))
    return kept[0].mT.contiguous(), kept[1]


def sketch(models: Mapping[str, Factors], layers: tuple[str, ...], left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    """Features (models, layers * outputs * inputs): each layer's sketch, over the norm of its update."""
    parts = []
    for layer in layers:
        rows = []
        for start in range(0, len(models[layer]), BATCH):
            batch = widen(models[layer][start : start + BATCH])
            norm = energy(batch).sqrt().clamp_min(1e-10)
            rows.append(bilinear(batch, left[layer], right[layer]).flatten(1) / norm[:, None])
        parts.append(torch.cat(rows))
    return torch.cat(parts, 1)


def widen(factors: Factors) -> Factors:
    """The same factors in single precision."""
    return Factors(factors.down.float(), factors.up.float())


def fit_ridge(features: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """Weights (features, dim) that minimise |features W - targets|^2 + penalty |W|^2, by the dual (models x models) system."""
    gram = features @ features.mT
    penalty = ridge * gram.diagonal().mean()
    return features.mT @ torch.linalg.solve(gram + penalty * torch.eye(len(gram)), targets)
