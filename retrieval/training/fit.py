"""Fit a model to a dataset by a config: a closed form or learned probes, with the labels that it is scored against."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from loradex.retrieval.probex.batched_factors import LayerFactors, to_float32
from loradex.retrieval.probex.directions import BATCH
from loradex.retrieval.probex.probes import ProbeNet
from loradex.retrieval.probex.sketch import SketchConfig, SketchRegression
from loradex.retrieval.probex.train import train_probes
from loradex.retrieval.space.calibration import Background
from loradex.retrieval.training.concept_dataset import ConceptDataset
from loradex.retrieval.training.dataset import Aim, Dataset
from loradex.retrieval.training.expert_config import ExpertConfig


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A fitted model: with the labels it is searched by, or one that predicts categories.

    Attributes:
        labels: (concepts, dim), vectors of the concepts' names in the output space of the model; None for categories.
        background: of the training models, if labels are scored against it.
    """

    model: SketchRegression | ProbeNet
    labels: Tensor | None
    background: Background | None

    @property
    def parameters(self) -> int:
        """The number of parameters of the model."""
        if isinstance(self.model, ProbeNet):
            return sum(parameter.numel() for parameter in self.model.parameters())
        parts = (self.model.left, self.model.right, self.model.mean, self.model.weight)
        return sum(tensor.numel() for part in parts for tensor in part.values()) + self.model.basis.numel()

    def encode(self, models: LayerFactors) -> Tensor:
        """Unit vectors (models, dim)."""
        return self._in_batches(self.model.encode, models)

    def scores(self, models: LayerFactors) -> Tensor:
        """Scores (models, concepts), or (models, categories)."""
        if self.labels is None:
            return self._in_batches(self.model.predict, models)
        vectors = self.encode(models)
        return self.background.z_scores(vectors, self.labels) if self.background else vectors @ self.labels.mT

    @torch.inference_mode()
    def _in_batches(self, function: Callable[[LayerFactors], Tensor], models: LayerFactors) -> Tensor:
        """Apply a function of the model to ``BATCH`` models at a time, on its device."""
        count = len(next(iter(models.values())))
        device, results = self.model.device, []
        for start in range(0, count, BATCH):
            rows = slice(start, start + BATCH)
            batch = {layer: to_float32(models[layer][rows]).to(device) for layer in self.model.config.layers}
            results.append(function(batch).cpu())
        return torch.cat(results)


def fit(
    dataset: Dataset,
    rows: Tensor,
    config: ExpertConfig,
    progress: Callable[[int, float], None] = lambda epoch, score: None,
    state: Path | None = None,
    device: str = "cpu",
    early_stop: bool = True,
) -> FittedModel:
    """Fit to the models ``rows`` of a dataset.

    Args:
        dataset: the models with their labels.
        rows: the training models.
        config: of the model.
        progress: is called with the epoch and the validation score of probes.
        state: a file for the progress of probes, from which a killed run resumes.
        device: to train probes on.
        early_stop: keep the epoch of probes that is best on the validation models; otherwise the last one.
    """
    train, model = dataset.take(rows, config.model.layers), config.model
    if isinstance(model, SketchConfig):
        sketch = SketchRegression.fit(train, *dataset.regression_targets(rows, config.aim), model)
        return with_labels(dataset, train, sketch, config)
    validation_rows = dataset.validation_rows
    validation = dataset.take(validation_rows, model.layers)

    def validate(net: ProbeNet) -> float:
        scores = with_labels(dataset, train, net, config).scores(validation)
        return dataset.validation_score(scores, validation_rows)

    net_config, objective = dataset.adapt_config(model, config.aim), dataset.objective(rows, config.aim)
    net = train_probes(
        train, objective, net_config, config.training, validate if early_stop else None, progress, state, device
    )
    return with_labels(dataset, train, net, config)


def with_labels(
    dataset: Dataset, train: LayerFactors, model: SketchRegression | ProbeNet, config: ExpertConfig
) -> FittedModel:
    """Add the labels of a dataset's concepts to a model and, if the config asks for it, its background."""
    if not isinstance(dataset, ConceptDataset):
        return FittedModel(model, None, None)
    with torch.inference_mode():
        labels = (
            model.encode_text(dataset.texts.to(model.device)).cpu()
            if isinstance(model, ProbeNet) and config.aim is Aim.CLIP_TEXTS
            else dataset.labels
        )
    fitted = FittedModel(model, labels, None)
    return replace(fitted, background=Background.fit(fitted.encode(train))) if config.against_background else fitted
