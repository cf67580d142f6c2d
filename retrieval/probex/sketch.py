"""The closed-form expert: two-sided principal sketches of every layer's update, and one ridge regression to text space.

For each layer, the principal output directions P of sum dW dW^T / |dW|^2 and input directions Q of sum dW^T dW / |dW|^2
over the training models are kept (two-sided PCA, Ye 2005). A model's sketch is P^T dW Q / |dW|, in factor form
(P^T up)(down Q): directions that only carry the random start of ``down`` fall away, and so does the overall scale.
The regression's output is cut to the principal directions of what it says of the training models (reduced-rank regression, Izenman 1975).
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
    """What a sketch keeps and how the map to the space is fitted."""

    layers: tuple[str, ...]
    outputs: int = 24  # principal output directions a layer
    inputs: int = 24  # principal input directions a layer
    query_key_weight: float = 0.5  # of the layers of queries and keys, which say less than values and outputs
    ridge: float = 0.5  # of the mean eigenvalue of the features' Gram matrix
    rank: int = 64  # of the map


@dataclass(frozen=True, slots=True)
class SketchExpert:
    """Sketches of many layers, and a linear map from them to the space.

    Attributes:
        left: for each layer (outputs, out); right: for each layer (in, inputs).
        mean: (features,); weight: (features, rank); basis: (rank, dim).
    """

    config: SketchConfig
    left: dict[str, Tensor]
    right: dict[str, Tensor]
    mean: Tensor
    weight: Tensor
    basis: Tensor

    @classmethod
    def fit(cls, models: Mapping[str, Factors], targets: Tensor, config: SketchConfig) -> "SketchExpert":
        """Fit on training models; ``targets`` (models, dim) are their vectors in the space."""
        left, right = {}, {}
        for layer in config.layers:
            left[layer], right[layer] = principal_directions(models[layer], config)
        features = sketch(models, config, left, right)
        mean = features.mean(0)
        weight = fit_ridge(features - mean, targets, config.ridge)
        basis = principal_outputs((features - mean) @ weight, config.rank)
        return cls(config, left, right, mean, weight @ basis.mT, basis)

    def encode(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit vectors (models, dim) in the space."""
        features = sketch(models, self.config, self.left, self.right)
        return F.normalize((features - self.mean) @ self.weight @ self.basis, dim=-1)


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
        kept.append(torch.linalg.eigh(spectrum).eigenvectors.flip(1)[:, :count])
    return kept[0].mT.contiguous(), kept[1]


def sketch(models: Mapping[str, Factors], config: SketchConfig, left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> Tensor:
    """Features (models, layers * outputs * inputs): each layer's sketch, over the norm of its update, times the layer's weight."""
    parts = []
    for layer in config.layers:
        weight = config.query_key_weight if layer.endswith(("to_q", "to_k")) else 1.0
        rows = []
        for start in range(0, len(models[layer]), BATCH):
            batch = widen(models[layer][start : start + BATCH])
            norm = energy(batch).sqrt().clamp_min(1e-10)
            rows.append(bilinear(batch, left[layer], right[layer]).flatten(1) * (weight / norm[:, None]))
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


def principal_outputs(predictions: Tensor, rank: int) -> Tensor:
    """The leading directions (rank, dim) of predictions (models, dim), fewer where they span fewer."""
    return torch.linalg.svd(predictions, full_matrices=False).Vh[:rank]
