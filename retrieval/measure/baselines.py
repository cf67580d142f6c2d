"""What the experts are measured against: a dense linear map of one layer, principal components of all weights, and their statistics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.probex.batched_factors import Factors, widen
from loradex.retrieval.probex.sketch import BATCH, principal_outputs
from loradex.retrieval.space.calibration import Background

FORMAT: Final = "loradex-baselines-1"
RANK: Final = 64


@dataclass(frozen=True, slots=True)
class DenseLinear:
    """Ridge regression from every entry of one layer's dW, the linear baseline of ProbeX's paper, without making dW.

    Attributes:
        weight: (rank, out, in); basis: (rank, dim); bias: (dim,).
    """

    layer: str
    weight: Tensor
    basis: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, models: Mapping[str, Factors], targets: Tensor, layer: str, ridge: float) -> "DenseLinear":
        """Fit by the dual system, whose Gram matrix comes from the factors: <dW1, dW2> = tr((up1^T up2)(down2 down1^T)).

        The map is cut to ``RANK`` principal outputs, as that of the expert is.
        """
        factors = widen(models[layer])
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
            batch = widen(factors[start : start + BATCH])
            parts.append(torch.einsum("nor,koi,nri->nk", batch.up, self.weight, batch.down))
        return F.normalize(torch.cat(parts) @ self.basis + self.bias, dim=-1)


def gram_matrix(factors: Factors, others: Factors | None = None) -> Tensor:
    """Inner products (models, models) of one layer's updates with those of other models, or with one another; multiplied out only where that is cheaper."""
    mine = list(by_rank(factors))
    theirs = mine if others is None else list(by_rank(others))
    gram = torch.zeros(len(factors), len(factors if others is None else others))
    for rows, some in mine:
        for columns, more in theirs:
            (out, rank), width = some.up.shape[1:], some.down.shape[2]
            if rank * more.up.shape[2] * (out + width) > out * width:  # ranks near those of whole matrices
                gram[rows[:, None], columns] = (some.up @ some.down).flatten(1) @ (more.up @ more.down).flatten(1).mT
                continue
            outer = torch.einsum("nor,mos->nmrs", some.up, more.up)
            inner = torch.einsum("nri,msi->nmrs", some.down, more.down)
            gram[rows[:, None], columns] = (outer * inner).sum((2, 3))
    return gram


def by_rank(factors: Factors) -> Iterator[tuple[Tensor, Factors]]:
    """The numbers of some models of one rank, and their factors without padding."""
    used = factors.down.abs().amax(2) > 0
    ranks = (used * torch.arange(1, used.shape[1] + 1)).amax(1).clamp_min(1)
    for rank in ranks.unique().tolist():
        for rows in torch.nonzero(ranks == rank).flatten().split(64):
            yield rows, Factors(factors.down[rows, :rank], factors.up[rows, :, :rank])


@dataclass(frozen=True, slots=True)
class WeightStatistics:
    """Moments and quantiles of every layer's factors through a small MLP, as in "Predicting neural network accuracy from weights" (Unterthiner 2020)."""

    layers: tuple[str, ...]
    mean: Tensor
    scale: Tensor
    tensors: tuple[Tensor, Tensor, Tensor, Tensor]  # two linear layers: weight, bias, weight, bias

    @classmethod
    def fit(
        cls, models: Mapping[str, Factors], targets: Tensor, hidden: int = 256, epochs: int = 300, seed: int = 0
    ) -> "WeightStatistics":
        """Train the MLP towards the targets by cosine."""
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
    """Features (models, layers * 14): mean, deviation and five quantiles of each factor's entries that are not padding."""
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
    """Principal components of whole updates over all layers (PCA of weights), and a ridge regression from them.

    By the dual form, so that the training models stand for the components, which would be as long as all updates together.

    Attributes:
        models: the training models; dual: (training models, dim); level: (training models,), the mean inner product of each with all.
    """

    models: dict[str, Factors]
    dual: Tensor
    level: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, models: Mapping[str, Factors], targets: Tensor, components: int, ridge: float) -> "PrincipalWeights":
        """Keep the first ``components``; the penalty is a multiple of their mean variance."""
        kept = {layer: widen(factors) for layer, factors in models.items()}
        gram = torch.stack([gram_matrix(factors) for factors in kept.values()]).sum(0)
        level = gram.mean(0)
        values, vectors = torch.linalg.eigh(gram - level - level[:, None] + level.mean())
        values, vectors = values[-components:], vectors[:, -components:]
        shrunk = vectors @ ((vectors.mT @ targets) / (values + ridge * values.mean())[:, None])  # (models, dim)
        return cls(kept, shrunk - shrunk.mean(0), level, targets.mean(0))

    def encode(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit vectors (models, dim)."""
        across = torch.stack(
            [gram_matrix(widen(models[layer]), factors) for layer, factors in self.models.items()]
        ).sum(0)
        return F.normalize((across - self.level) @ self.dual + self.bias, dim=-1)


Baseline = DenseLinear | WeightStatistics
DENSE_LINEAR, WEIGHT_STATISTICS = "dense_linear", "weight_statistics"


@dataclass(frozen=True, slots=True)
class Baselines:
    """Both baselines of one model tree, each with the background that its scores are standardised by."""

    dense: DenseLinear
    dense_background: Background
    statistics: WeightStatistics
    statistics_background: Background

    @classmethod
    def fit(cls, models: Mapping[str, Factors], targets: Tensor, layer: str, ridge: float) -> "Baselines":
        """Fit both."""
        dense, statistics = DenseLinear.fit(models, targets, layer, ridge), WeightStatistics.fit(models, targets)
        return cls(dense, Background.of(dense.encode(models)), statistics, Background.of(statistics.encode(models)))

    def scores(self, models: Mapping[str, Factors], labels: Tensor) -> dict[str, Tensor]:
        """Standardised scores (models, labels) of each, by name."""
        return {
            DENSE_LINEAR: self.dense_background.standardise(self.dense.encode(models), labels),
            WEIGHT_STATISTICS: self.statistics_background.standardise(self.statistics.encode(models), labels),
        }

    def cut(self, rank: int) -> "Baselines":
        """The same with the leading ``rank`` principal outputs of the dense map, for a smaller checkpoint."""
        return replace(self, dense=replace(self.dense, weight=self.dense.weight[:rank], basis=self.dense.basis[:rank]))

    def save(self, path: Path) -> None:
        """Write one checkpoint; large tensors in half precision."""
        dense, statistics = self.dense, self.statistics
        tensors = {"dense.weight": dense.weight.half(), "dense.basis": dense.basis.half(), "dense.bias": dense.bias}
        tensors |= {"statistics.mean": statistics.mean, "statistics.scale": statistics.scale}
        tensors |= {f"statistics.{i}": tensor.half() for i, tensor in enumerate(statistics.tensors)}
        for name, background in (DENSE_LINEAR, self.dense_background), (WEIGHT_STATISTICS, self.statistics_background):
            tensors |= {f"{name}.mean": background.mean, f"{name}.covariance": background.covariance.half()}
        save_checkpoint(path, FORMAT, {"layer": dense.layer, "layers": statistics.layers}, tensors)

    @classmethod
    def load(cls, path: Path) -> "Baselines":
        """Read what ``save`` wrote.

        Raises:
            CheckpointError: the file is missing or damaged.
        """
        settings, tensors = load_checkpoint(path, FORMAT)
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        parts = (tensors["statistics.0"], tensors["statistics.1"], tensors["statistics.2"], tensors["statistics.3"])
        dense, other = (
            Background(tensors[f"{name}.mean"], tensors[f"{name}.covariance"])
            for name in (DENSE_LINEAR, WEIGHT_STATISTICS)
        )
        return cls(
            DenseLinear(settings["layer"], tensors["dense.weight"], tensors["dense.basis"], tensors["dense.bias"]),
            dense,
            WeightStatistics(tuple(settings["layers"]), tensors["statistics.mean"], tensors["statistics.scale"], parts),
            other,
        )
