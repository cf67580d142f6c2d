"""Configurations of experts: the one that ships, and ProbeX and MVProbe as published."""

from dataclasses import dataclass, fields, replace
from typing import Any

from loradex.retrieval.probex.objective import ProbeTraining
from loradex.retrieval.probex.probes import ALL_VIEWS, ProbeConfig, View
from loradex.retrieval.probex.sketch import SketchConfig
from loradex.retrieval.training.dataset import Aim


@dataclass(frozen=True, slots=True)
class Mixing:
    """How models that were grown from the base model count beside real ones, in a closed form."""

    grown_weight: float = 0.3  # of the squared error of a grown model, beside 1 of a real one
    own_means: bool = True  # centre real and grown models each on their own mean


@dataclass(frozen=True, slots=True)
class ExpertConfig:
    """All settings that decide what an expert becomes."""

    model: SketchConfig | ProbeConfig
    training: ProbeTraining = ProbeTraining()  # of probes; a closed form does not use it
    aim: Aim = Aim.DRAWINGS
    against_background: bool = True  # score labels by z-scores against models in general, not by cosines
    mixing: Mixing = Mixing()

    def with_settings(self, **settings: Any) -> "ExpertConfig":
        """Return a copy with some settings changed, by their names in one of its parts, or here."""
        parts: dict[str, Any] = {"model": self.model, "training": self.training, "mixing": self.mixing}
        for name, part in parts.items():
            of_part = {field.name: settings.pop(field.name) for field in fields(part) if field.name in settings}
            parts[name] = replace(part, **of_part)
        return replace(self, **parts, **settings)


# Training on Model-J's classifiers in the official codes of ProbeX and MVProbe; the best of every 25th epoch counts.
PUBLISHED_CATEGORIES = ProbeTraining(epochs=500, lr=1e-3, weight_decay=1e-5, check_every=25, patience=1000)


def loradex_config(layers: tuple[str, ...]) -> ExpertConfig:
    """The expert that ships: a closed form."""
    return ExpertConfig(SketchConfig(layers))


def probex_config(layer: str) -> ExpertConfig:
    """ProbeX as published: one layer, 128 probes, Adam at 2e-3, cross-entropy of raw cosines with texts."""
    return ExpertConfig(ProbeConfig((layer,)), ProbeTraining(), Aim.CLIP_TEXTS, against_background=False)


def mvprobe_config(layer: str) -> ExpertConfig:
    """MVProbe as published: four views, standardised responses, a learning rate of 3e-4, up to 400 epochs."""
    config = ProbeConfig((layer,), views=ALL_VIEWS, standardise=True)
    return ExpertConfig(config, ProbeTraining(epochs=400, lr=3e-4), Aim.CLIP_TEXTS, against_background=False)


def category_config(kind: str, layers: tuple[str, ...], categories: int) -> ExpertConfig:
    """The config of a category expert.

    Args:
        kind: "loradex" for a closed form whose map keeps a direction for each category; "probex" or "mvprobe" for
            probes as published, which read one layer.
        layers: to read.
        categories: the number of categories.
    """
    if kind == "loradex":
        return ExpertConfig(
            SketchConfig(layers, 32, 32, quadratic=0.0, ridge=0.05, most_layers=12, rank=categories, wide=128)
        )
    config = {"probex": probex_config, "mvprobe": mvprobe_config}[kind](layers[0])
    return replace(config.with_settings(layers=layers), training=PUBLISHED_CATEGORIES)


def config_from_dict(settings: dict[str, Any]) -> ExpertConfig:
    """Reverse ``dataclasses.asdict``, also after a round trip through JSON."""
    model = settings["model"] | {"layers": tuple(settings["model"]["layers"])}
    if "ridge" in model:
        return ExpertConfig(
            SketchConfig(**model),
            aim=Aim(settings["aim"]),
            against_background=settings["against_background"],
            mixing=Mixing(**settings.get("mixing", {})),
        )
    probes = ProbeConfig(**model | {"views": tuple(map(View, model["views"]))})
    return ExpertConfig(
        probes, ProbeTraining(**settings["training"]), Aim(settings["aim"]), settings["against_background"]
    )
