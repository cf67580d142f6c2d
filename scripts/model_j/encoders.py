"""The encoders that the protocol compares, each fitted on the split ``train`` of a study."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from torch import Tensor

from loradex.retrieval.measure.baselines import PrincipalWeights
from loradex.retrieval.space.calibration import Background
from loradex.retrieval.training.concept_dataset import TRAINING, VALIDATION, Study
from loradex.retrieval.training.fit import Models, fit, loradex, mvprobe, probex
from scripts.model_j import LAYER, TEXT_ENCODER
from scripts.model_j.published import train_published

PENALTIES: Final = (0.1, 1.0, 10.0)  # of the dense map

Report = Callable[[int, int, str], None]  # how much is done, of how much, and of what


@dataclass(frozen=True, slots=True)
class ProtocolOptions:
    """What to measure, and how; the defaults are the papers'."""

    folder: Path
    text_encoder: str = TEXT_ENCODER
    layer: str = LAYER
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"  # of probes
    epochs: int | None = None  # of probes; fewer than the papers' to try it out
    out: Path | None = None  # the document, written after each encoder, from which a run that was stopped goes on


class Scorer(Protocol):
    """What maps models to vectors, and to scores of the concepts."""

    def encode(self, models: Models) -> Tensor:
        """Unit vectors (models, dim)."""

    def scores(self, models: Models) -> Tensor:
        """Scores (models, concepts)."""


@dataclass(frozen=True, slots=True)
class DenseScorer:
    """Ridge regression from every entry of one layer's dW, in its dual form: with all components kept, ``PrincipalWeights`` is ``DenseLinear``.

    ``DenseLinear.fit`` would need some 37 GB for the 3,500 training models, measured as 10.6 MiB a model.
    """

    model: PrincipalWeights
    background: Background
    labels: Tensor

    @classmethod
    def fit(cls, study: Study, layer: str) -> "DenseScorer":
        """Fit on ``train``, with the penalty that does best on ``val_holdout``."""
        rows, unseen = study.rows(TRAINING), study.rows(VALIDATION)
        train = study.take(rows, [layer])
        found = []
        for penalty in PENALTIES:
            model = PrincipalWeights.fit(train, study.targets[rows], len(rows), penalty)
            scorer = cls(model, Background.of(model.encode(train)), study.labels)
            found.append(
                (study.merit(scorer.scores(study.take(unseen, [layer])), unseen) if len(unseen) else 0.0, scorer)
            )
        return max(found, key=lambda pair: pair[0])[1]

    def encode(self, models: Models) -> Tensor:
        """Unit vectors (models, dim)."""
        return self.model.encode({layer: models[layer] for layer in self.model.models})

    def scores(self, models: Models) -> Tensor:
        """Scores (models, concepts)."""
        return self.background.standardise(self.encode(models), self.labels)


@dataclass(frozen=True, slots=True)
class Fit:
    """One encoder: what names unseen concepts, what names seen ones, and how it came about."""

    name: str
    layers: tuple[str, ...]
    unseen: Scorer
    seen: Scorer
    seed: int | None = None  # None for what has no random part
    epochs: dict[str, int] | None = None


def encoders(
    study: Study,
    texts: Tensor,
    options: ProtocolOptions,
    layers: tuple[str, ...],
    done: set[tuple[str, int | None]],
    report: Report,
) -> Iterator[Fit]:
    """Every encoder that is not ``done``, fitted."""
    layer, rows = options.layer, study.rows(TRAINING)
    name = "dense linear, one layer"
    if (name, None) not in done:
        report(0, 1, name)
        dense = DenseScorer.fit(study, layer)
        yield Fit(name, (layer,), dense, dense)
    forms = {"Loradex, one layer": (layer,)} | ({"Loradex, many layers": layers} if len(layers) > 1 else {})
    for name, some in forms.items():
        if (name, None) not in done:
            report(0, 1, name)
            ours = fit(study, rows, loradex(some))
            yield Fit(name, some, ours, ours)
    for name, config in {"ProbeX as published": probex(layer), "MVProbe as published": mvprobe(layer)}.items():
        epochs = options.epochs or config.training.epochs
        short = replace(config, training=replace(config.training, epochs=epochs))
        for seed in options.seeds:
            if (name, seed) not in done:
                made = train_published(
                    study, texts, short, seed, options.device, partial(look, report, f"{name}, seed {seed}", epochs)
                )
                yield Fit(name, (layer,), made.unseen, made.seen, seed, made.epochs)


def look(report: Report, what: str, epochs: int, epoch: int, share: float) -> None:
    """Report how far training is."""
    report(epoch, epochs, f"{what}: {100 * share:.1f} %")
