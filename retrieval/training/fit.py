"""One way to make an expert from a study: what reads the updates, what it aims at, how it is trained, and how its labels are scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loradex.retrieval.probex.batched_factors import Factors, widen
from loradex.retrieval.probex.objective import ProbeTraining
from loradex.retrieval.probex.probes import ALL_VIEWS, ProbeConfig, ProbeNet, View
from loradex.retrieval.probex.sketch import BATCH, SketchConfig, SketchExpert
from loradex.retrieval.probex.train import train_probes
from loradex.retrieval.space.calibration import Background
from loradex.retrieval.training.category_dataset import CategoryStudy
from loradex.retrieval.training.concept_dataset import Aim, Study

Models = Mapping[str, Factors]
Subject = Study | CategoryStudy  # what an expert is made from


@dataclass(frozen=True, slots=True)
class ExpertConfig:
    """All that decides what an expert becomes."""

    model: SketchConfig | ProbeConfig
    training: ProbeTraining = ProbeTraining()  # of probes; a closed form needs none
    aim: Aim = Aim.DRAWINGS
    against_background: bool = True  # score labels by how much nearer they are to the model than to models in general

    def changed(self, **settings: Any) -> "ExpertConfig":
        """The same with some settings changed, wherever they belong: in the model, its training, or here."""
        parts: dict[str, Any] = {"model": self.model, "training": self.training}
        for name, part in parts.items():
            own = {field.name: settings.pop(field.name) for field in fields(part) if field.name in settings}
            parts[name] = replace(part, **own)
        return replace(self, **parts, **settings)


# ProbeX's and MVProbe's training to tell categories (the official codes' settings for Model-J's classifiers): the best of every 25th epoch.
PUBLISHED_CATEGORIES = ProbeTraining(epochs=500, lr=1e-3, weight_decay=1e-5, check_every=25, patience=1000)


def loradex(layers: tuple[str, ...]) -> ExpertConfig:
    """The expert that ships."""
    return ExpertConfig(SketchConfig(layers))


def probex(layer: str) -> ExpertConfig:
    """ProbeX as published: one layer, 128 probes, Adam at 2e-3, cross-entropy of raw cosines with texts."""
    return ExpertConfig(ProbeConfig((layer,)), ProbeTraining(), Aim.CLIP_TEXTS, against_background=False)


def mvprobe(layer: str) -> ExpertConfig:
    """MVProbe as published: four views, standardised responses, a rate of 3e-4, up to 400 epochs."""
    config = ProbeConfig((layer,), views=ALL_VIEWS, standardise=True)
    return ExpertConfig(config, ProbeTraining(epochs=400, lr=3e-4), Aim.CLIP_TEXTS, against_background=False)


def tells_categories(kind: str, layers: tuple[str, ...], categories: int) -> ExpertConfig:
    """The kinds of experts that tell categories: Loradex's, whose map keeps a direction for each, or probes as published, which read one layer."""
    if kind == "loradex":
        return ExpertConfig(
            SketchConfig(layers, 32, 32, quadratic=0.0, ridge=0.05, most_layers=12, rank=categories, wide=128)
        )
    config = {"probex": probex, "mvprobe": mvprobe}[kind](layers[0])
    return replace(config.changed(layers=layers), training=PUBLISHED_CATEGORIES)


@dataclass(frozen=True, slots=True)
class Fitted:
    """An encoder with the texts that it is searched by, or one that says categories.

    Attributes:
        labels: (concepts, dim), the concepts' names where the encoder's vectors are; None for categories.
        background: of the training models, if labels are scored against it.
    """

    model: SketchExpert | ProbeNet
    labels: Tensor | None
    background: Background | None

    @property
    def parameters(self) -> int:
        """How many numbers the encoder has."""
        if isinstance(self.model, ProbeNet):
            return sum(parameter.numel() for parameter in self.model.parameters())
        parts = (self.model.left, self.model.right, self.model.mean, self.model.weight)
        return sum(tensor.numel() for part in parts for tensor in part.values()) + self.model.basis.numel()

    def encode(self, models: Models) -> Tensor:
        """Unit vectors (models, dim)."""
        return self._in_batches(self.model.encode, models)

    def scores(self, models: Models) -> Tensor:
        """Scores (models, concepts), or (models, categories)."""
        if self.labels is None:
            return self._in_batches(self.model.predict, models)
        vectors = self.encode(models)
        return self.background.standardise(vectors, self.labels) if self.background else vectors @ self.labels.mT

    @torch.inference_mode()
    def _in_batches(self, say: Callable[[Models], Tensor], models: Models) -> Tensor:
        count = len(next(iter(models.values())))
        place, parts = self.model.device, []
        for start in range(0, count, BATCH):
            batch = {layer: widen(models[layer][start : start + BATCH]).to(place) for layer in self.model.config.layers}
            parts.append(say(batch).cpu())
        return torch.cat(parts)


def fit(
    study: Subject,
    rows: Tensor,
    config: ExpertConfig,
    progress: Callable[[int, float], None] = lambda epoch, score: None,
    state: Path | None = None,
    device: str = "cpu",
    early_stop: bool = True,
) -> Fitted:
    """Train on the models ``rows`` of a study; probes end at the best epoch on validation concepts, or, without ``early_stop``, at their last."""
    train, model = study.take(rows, config.model.layers), config.model
    if isinstance(model, SketchConfig):
        return finished(study, train, SketchExpert.fit(train, *study.aims(rows, config.aim), model), config)
    judged = study.judged
    unseen = study.take(judged, model.layers)

    def validate(net: ProbeNet) -> float:
        return study.merit(finished(study, train, net, config).scores(unseen), judged)

    shape, objective = study.net_for(model, config.aim), study.objective(rows, config.aim)
    net = train_probes(
        train, objective, shape, config.training, validate if early_stop else None, progress, state, device
    )
    return finished(study, train, net, config)


def finished(study: Subject, train: Models, model: SketchExpert | ProbeNet, config: ExpertConfig) -> Fitted:
    """An encoder with its labels and, if wanted, its background; of categories it has neither."""
    if isinstance(study, CategoryStudy):
        return Fitted(model, None, None)
    with torch.inference_mode():
        labels = (
            model.encode_text(study.texts.to(model.device)).cpu()
            if isinstance(model, ProbeNet) and config.aim is Aim.CLIP_TEXTS
            else study.labels
        )
    plain = Fitted(model, labels, None)
    return replace(plain, background=Background.of(plain.encode(train))) if config.against_background else plain


def config_of(settings: dict[str, Any]) -> ExpertConfig:
    """The config that ``dataclasses.asdict`` made ``settings`` of, also after a way through JSON."""
    model = settings["model"] | {"layers": tuple(settings["model"]["layers"])}
    if "ridge" in model:
        return ExpertConfig(
            SketchConfig(**model), aim=Aim(settings["aim"]), against_background=settings["against_background"]
        )
    probes = ProbeConfig(**model | {"views": tuple(map(View, model["views"]))})
    return ExpertConfig(
        probes, ProbeTraining(**settings["training"]), Aim(settings["aim"]), settings["against_background"]
    )
