"""Baselines: a dense linear map of one layer, principal components of all weights, and statistics of weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.probex.batched_factors import Factors, to_float32
from loradex.retrieval.probex.directions import BATCH
from loradex.retrieval.probex.ridge import principal_outputs
from loradex.retrieval.space.calibration import Background

FORMAT: Final = "loradex-baselines-2"
BLOCK: Final = 16  # numbers that share a scale in a checkpoint
SCALES: Final = ".scales"  # the ending of their name
SMALLEST_SCALE: Final = 2.0**-24  # above zero in float16
RANK: Final = 64  # of a dense map
GROUP: Final = 64  # models of one rank multiplied at a time


@dataclass(frozen=True, slots=True)
class DenseLinear:
    """Ridge regression from all entries of one layer's dW, ProbeX's linear baseline, without computing dW.

    Attributes:
        weight: (rank, out, in).
        basis: (rank, dim), principal directions of the predictions.
        bias: (dim,).
    """

    layer: str
    weight: Tensor
    basis: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, models: Mapping[str, Factors], targets: Tensor, layer: str, ridge: float) -> "DenseLinear":
        """Fit to training models, in the dual: <dW1, dW2> = tr((up1^T up2)(down2 down1^T)) needs only the factors.

        The map is cut to ``RANK`` principal outputs, like that of the closed-form expert.

        Args:
            models: the packed factors of each layer.
            targets: (models, dim).
            layer: that is read.
            ridge: the penalty, as a multiple of the Gram matrix's mean eigenvalue.
        """
        factors = to_float32(models[layer])
        gram = gram_matrix(factors)
        centring = torch.eye(len(gram)) - 1 / len(gram)
        centred = centring @ gram @ centring
        penalty = ridge * centred.diagonal().mean()
        dual = centring @ torch.linalg.solve(centred + penalty * torch.eye(len(gram)), targets)  # (models, dim)
        basis = principal_outputs(centred @ dual, RANK)
        weight = torch.zeros(len(basis), factors.up.shape[1], factors.down.shape[2])
        for rows in torch.arange(len(factors)).split(BATCH):
            weight += torch.einsum("nk,nor,nri->koi", (dual @ basis.mT)[rows], factors.up[rows], factors.down[rows])
        bias = targets.mean(0) - (gram @ dual).mean(0) @ basis.mT @ basis
        return cls(layer, weight, basis, bias)

    def encode(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit vectors (models, dim)."""
        factors = models[self.layer]
        parts = []
        for start in range(0, len(factors), BATCH):
            batch = to_float32(factors[start : start + BATCH])
            parts.append(torch.einsum("nor,koi,nri->nk", batch.up, self.weight, batch.down))
        return F.normalize(torch.cat(parts) @ self.basis + self.bias, dim=-1)


def gram_matrix(factors: Factors, others: Factors | None = None) -> Tensor:
    """Inner products (models, other models) of one layer's updates; with each other if ``others`` is None.

    Updates are multiplied out only where that is cheaper.
    """
    row_groups = list(group_by_rank(factors))
    column_groups = row_groups if others is None else list(group_by_rank(others))
    gram = torch.zeros(len(factors), len(factors if others is None else others))
    for rows, left in row_groups:
        for columns, right in column_groups:
            (out, rank), width = left.up.shape[1:], left.down.shape[2]
            if rank * right.up.shape[2] * (out + width) > out * width:  # ranks near full rank
                gram[rows[:, None], columns] = (left.up @ left.down).flatten(1) @ (right.up @ right.down).flatten(1).mT
                continue
            outer = torch.einsum("nor,mos->nmrs", left.up, right.up)
            inner = torch.einsum("nri,msi->nmrs", left.down, right.down)
            gram[rows[:, None], columns] = (outer * inner).sum((2, 3))
    return gram


def group_by_rank(factors: Factors) -> Iterator[tuple[Tensor, Factors]]:
    """Yield the rows of up to ``GROUP`` models of one rank, and their factors without padding."""
    used = factors.down.abs().amax(2) > 0
    ranks = (used * torch.arange(1, used.shape[1] + 1)).amax(1).clamp_min(1)
    for rank in ranks.unique().tolist():
        for rows in torch.nonzero(ranks == rank).flatten().split(GROUP):
            yield rows, Factors(factors.down[rows, :rank], factors.up[rows, :, :rank])


@dataclass(frozen=True, slots=True)
class WeightStatistics:
    """Moments and quantiles of every layer's factors, mapped by a small MLP.

    As in "Predicting neural network accuracy from weights" (Unterthiner et al. 2020).

    Attributes:
        mean: (features,), of the training models.
        scale: (features,), their standard deviations.
        tensors: weight and bias of the first linear layer, weight and bias of the second.
    """

    layers: tuple[str, ...]
    mean: Tensor
    scale: Tensor
    tensors: tuple[Tensor, Tensor, Tensor, Tensor]

    @classmethod
    def fit(
        cls, models: Mapping[str, Factors], targets: Tensor, hidden: int = 256, epochs: int = 300, seed: int = 0
    ) -> "WeightStatistics":
        """Train the MLP by the cosine of its outputs with the targets (models, dim)."""
        torch.manual_seed(seed)
        layers = tuple(models)
        features = statistics(models, layers)
        mean, scale = features.mean(0), features.std(0).clamp_min(1e-8)
        features = (features - mean) / scale
        mlp = torch.nn.Sequential(
            torch.nn.Linear(features.shape[1], hidden),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(hidden, targets.shape[1]),
        )
        optimizer = torch.optim.AdamW(mlp.parameters(), lr=1e-3, weight_decay=0.05)
        for _ in range(epochs):
            for rows in torch.randperm(len(features)).split(128):
                loss = 1 - F.cosine_similarity(mlp(features[rows]), targets[rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        first, last = mlp[0], mlp[3]
        assert isinstance(first, torch.nn.Linear)
        assert isinstance(last, torch.nn.Linear)
        return cls(
            layers, mean, scale, (first.weight.detach(), first.bias.detach(), last.weight.detach(), last.bias.detach())
        )

    def encode(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit vectors (models, dim)."""
        features = (statistics(models, self.layers) - self.mean) / self.scale
        hidden = F.linear(features, *self.tensors[:2]).relu()
        return F.normalize(F.linear(hidden, *self.tensors[2:]), dim=-1)


def statistics(models: Mapping[str, Factors], layers: tuple[str, ...]) -> Tensor:
    """Features (models, layers * 14): mean, deviation and five quantiles of each factor's entries without padding."""
    quantiles = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    parts = []
    for layer in layers:
        for factor in (models[layer].down, models[layer].up):
            rows = factor.float().flatten(1)
            rows = rows.masked_fill(rows == 0, torch.nan)
            mean = rows.nanmean(1, keepdim=True)
            spread = (rows - mean).square().nanmean(1, keepdim=True).sqrt()
            parts += [mean, spread, rows.nanquantile(quantiles, dim=1).mT]
    return torch.cat(parts, 1).nan_to_num()


@dataclass(frozen=True, slots=True)
class PrincipalWeights:
    """Principal components of the updates of all layers (PCA of weights), and a ridge regression from them.

    In the dual form: the components, each as long as all updates together, are combinations of the training models.

    Attributes:
        models: the training models.
        dual: (training models, dim).
        level: (training models,), the mean inner product of each with all.
        bias: (dim,).
    """

    models: dict[str, Factors]
    dual: Tensor
    level: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, models: Mapping[str, Factors], targets: Tensor, components: int, ridge: float) -> "PrincipalWeights":
        """Fit to training models.

        Args:
            models: the packed factors of each layer.
            targets: (models, dim).
            components: how many leading ones are kept.
            ridge: the penalty, in mean variances of these components.
        """
        models = {layer: to_float32(factors) for layer, factors in models.items()}
        gram = torch.stack([gram_matrix(factors) for factors in models.values()]).sum(0)
        level = gram.mean(0)
        values, vectors = torch.linalg.eigh(gram - level - level[:, None] + level.mean())
        values, vectors = values[-components:], vectors[:, -components:]
        shrunk = vectors @ ((vectors.mT @ targets) / (values + ridge * values.mean())[:, None])  # (models, dim)
        return cls(models, shrunk - shrunk.mean(0), level, targets.mean(0))

    def encode(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit vectors (models, dim)."""
        cross_gram = torch.stack(
            [gram_matrix(to_float32(models[layer]), factors) for layer, factors in self.models.items()]
        ).sum(0)
        return F.normalize((cross_gram - self.level) @ self.dual + self.bias, dim=-1)


Baseline = DenseLinear | WeightStatistics
DENSE_LINEAR, WEIGHT_STATISTICS = "dense_linear", "weight_statistics"


@dataclass(frozen=True, slots=True)
class Baselines:
    """Both baselines of one model tree, each with the background of its z-scores."""

    dense: DenseLinear
    dense_background: Background
    statistics: WeightStatistics
    statistics_background: Background

    @classmethod
    def fit(cls, models: Mapping[str, Factors], targets: Tensor, layer: str, ridge: float) -> "Baselines":
        """Fit both baselines; arguments as for ``DenseLinear.fit``."""
        dense, statistics = DenseLinear.fit(models, targets, layer, ridge), WeightStatistics.fit(models, targets)
        return cls(dense, Background.fit(dense.encode(models)), statistics, Background.fit(statistics.encode(models)))

    def scores(self, models: Mapping[str, Factors], labels: Tensor) -> dict[str, Tensor]:
        """Z-scores (models, labels) of each baseline, by its name."""
        return {
            DENSE_LINEAR: self.dense_background.z_scores(self.dense.encode(models), labels),
            WEIGHT_STATISTICS: self.statistics_background.z_scores(self.statistics.encode(models), labels),
        }

    def truncate(self, rank: int) -> "Baselines":
        """Return the baselines with only ``rank`` principal outputs of the dense map, for a smaller checkpoint."""
        return replace(self, dense=replace(self.dense, weight=self.dense.weight[:rank], basis=self.dense.basis[:rank]))

    def save(self, path: Path) -> None:
        """Write a checkpoint, with large matrices at one byte a number.

        Raises:
            CheckpointError: the file cannot be written.
        """
        dense, statistics = self.dense, self.statistics
        tensors = {"dense.basis": dense.basis.half(), "dense.bias": dense.bias}
        tensors |= {"statistics.mean": statistics.mean, "statistics.scale": statistics.scale}
        tensors |= {f"statistics.{i}": statistics.tensors[i] for i in (1, 3)}
        matrices = {"dense.weight": dense.weight} | {f"statistics.{i}": statistics.tensors[i] for i in (0, 2)}
        for name, background in (DENSE_LINEAR, self.dense_background), (WEIGHT_STATISTICS, self.statistics_background):
            tensors[f"{name}.mean"], matrices[f"{name}.covariance"] = background.mean, background.covariance
        for name, matrix in matrices.items():
            tensors[name], tensors[name + SCALES] = to_bytes(matrix)
        save_checkpoint(path, FORMAT, {"layer": dense.layer, "layers": statistics.layers}, tensors)

    @classmethod
    def load(cls, path: Path) -> "Baselines":
        """Read a checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged or of another format.
        """
        settings, stored = load_checkpoint(path, FORMAT)
        tensors = {
            name: from_bytes(tensor, stored[name + SCALES]) if name + SCALES in stored else tensor.float()
            for name, tensor in stored.items()
        }
        parts = (tensors["statistics.0"], tensors["statistics.1"], tensors["statistics.2"], tensors["statistics.3"])
        dense_background, statistics_background = (
            Background(tensors[f"{name}.mean"], tensors[f"{name}.covariance"])
            for name in (DENSE_LINEAR, WEIGHT_STATISTICS)
        )
        return cls(
            DenseLinear(settings["layer"], tensors["dense.weight"], tensors["dense.basis"], tensors["dense.bias"]),
            dense_background,
            WeightStatistics(tuple(settings["layers"]), tensors["statistics.mean"], tensors["statistics.scale"], parts),
            statistics_background,
        )


def to_bytes(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A tensor in int8, of its shape, and the scales (blocks,) in float16 of its numbers, ``BLOCK`` at a time."""
    blocks = F.pad(tensor.float().flatten(), (0, -tensor.numel() % BLOCK)).unflatten(0, (-1, BLOCK))
    scales = (blocks.abs().amax(1) / 127).half().clamp(min=SMALLEST_SCALE)
    rounded = (blocks / scales[:, None].float()).round().clamp(-127, 127).to(torch.int8)
    return rounded.flatten()[: tensor.numel()].reshape(tensor.shape), scales


def from_bytes(rounded: Tensor, scales: Tensor) -> Tensor:
    """The tensor that ``to_bytes`` rounded."""
    return rounded * scales.float().repeat_interleave(BLOCK)[: rounded.numel()].reshape(rounded.shape)
