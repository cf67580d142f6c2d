"""The encoders that the protocol compares, each fitted on the split ``train`` of a dataset."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from torch import Tensor

from loradex.retrieval.measure.baselines import PrincipalWeights
from loradex.retrieval.probex.batched_factors import LayerFactors
from loradex.retrieval.space.calibration import Background
from loradex.retrieval.training.concept_dataset import TRAINING, VALIDATION, ConceptDataset
from loradex.retrieval.training.expert_config import loradex_config, mvprobe_config, probex_config
from loradex.retrieval.training.fit import fit
from scripts.model_j import LAYER, TEXT_ENCODER
from scripts.model_j.fetch import ProgressCallback
from scripts.model_j.published import train_published

PENALTIES: Final = (0.1, 1.0, 10.0)  # of the dense map


@dataclass(frozen=True, slots=True)
class ProtocolOptions:
    """What to measure, and how; the defaults are the papers'."""

    folder: Path
    text_encoder: str = TEXT_ENCODER
    layer: str = LAYER
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"  # of probes
    epochs: int | None = None  # of probes; by default the papers'
    out: Path | None = None  # of the document: written after each encoder; a stopped run continues from it


class Scorer(Protocol):
    """Maps models to vectors and to scores of the concepts."""

    def encode(self, models: LayerFactors) -> Tensor:
        """Unit vectors (models, dim)."""

    def scores(self, models: LayerFactors) -> Tensor:
        """Scores (models, concepts)."""


@dataclass(frozen=True, slots=True)
class DenseScorer:
    """Ridge regression from all entries of one layer's dW, in its dual form.

    With all components kept, ``PrincipalWeights`` equals ``DenseLinear``. ``DenseLinear.fit`` would need some 37 GB for
    the 3,500 training models (measured: 10.6 MiB a model).
    """

    model: PrincipalWeights
    background: Background
    labels: Tensor

    @classmethod
    def fit(cls, dataset: ConceptDataset, layer: str) -> "DenseScorer":
        """Fit on ``train``, with the penalty that does best on ``val_holdout``."""
        rows, validation = dataset.rows(TRAINING), dataset.rows(VALIDATION)
        train = dataset.take(rows, [layer])
        scored = []
        for penalty in PENALTIES:
            model = PrincipalWeights.fit(train, dataset.targets[rows], len(rows), penalty)
            scorer = cls(model, Background.fit(model.encode(train)), dataset.labels)
            scored.append(
                (
                    dataset.validation_score(scorer.scores(dataset.take(validation, [layer])), validation)
                    if len(validation)
                    else 0.0,
                    scorer,
                )
            )
        return max(scored, key=lambda pair: pair[0])[1]

    def encode(self, models: LayerFactors) -> Tensor:
        """Unit vectors (models, dim)."""
        return self.model.encode({layer: models[layer] for layer in self.model.models})

    def scores(self, models: LayerFactors) -> Tensor:
        """Scores (models, concepts)."""
        return self.background.z_scores(self.encode(models), self.labels)


@dataclass(frozen=True, slots=True)
class FittedEncoder:
    """A fitted encoder: the scorers for unseen and for seen concepts, and how they were fitted."""

    name: str
    layers: tuple[str, ...]
    unseen: Scorer
    seen: Scorer
    seed: int | None = None  # None for encoders without a random part
    epochs: dict[str, int] | None = None


def fit_encoders(
    dataset: ConceptDataset,
    texts: Tensor,
    options: ProtocolOptions,
    layers: tuple[str, ...],
    done: set[tuple[str, int | None]],
    report: ProgressCallback,
) -> Iterator[FittedEncoder]:
    """Fit and yield every encoder that is not in ``done``, a set of (name, seed)."""
    layer, rows = options.layer, dataset.rows(TRAINING)
    name = "dense linear, one layer"
    if (name, None) not in done:
        report(0, 1, name)
        dense = DenseScorer.fit(dataset, layer)
        yield FittedEncoder(name, (layer,), dense, dense)
    closed_forms = {"Loradex, one layer": (layer,)} | ({"Loradex, many layers": layers} if len(layers) > 1 else {})
    for name, closed_form_layers in closed_forms.items():
        if (name, None) not in done:
            report(0, 1, name)
            closed_form = fit(dataset, rows, loradex_config(closed_form_layers))
            yield FittedEncoder(name, closed_form_layers, closed_form, closed_form)
    for name, config in {
        "ProbeX as published": probex_config(layer),
        "MVProbe as published": mvprobe_config(layer),
    }.items():
        epochs = options.epochs or config.training.epochs
        run_config = replace(config, training=replace(config.training, epochs=epochs))
        for seed in options.seeds:
            if (name, seed) not in done:
                nets = train_published(
                    dataset,
                    texts,
                    run_config,
                    seed,
                    options.device,
                    partial(report_epoch, report, f"{name}, seed {seed}", epochs),
                )
                yield FittedEncoder(name, (layer,), nets.unseen, nets.seen, seed, nets.epochs)


def report_epoch(report: ProgressCallback, name: str, epochs: int, epoch: int, accuracy: float) -> None:
    """Report the epoch that was checked, and its top-1 accuracy on ``val_holdout``."""
    report(epoch, epochs, f"{name}: {100 * accuracy:.1f} %")
