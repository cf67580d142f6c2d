"""The options and the answer of ``loradex train``."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from loradex.app.paths import MINIATURE
from loradex.retrieval.errors import QueryError
from loradex.retrieval.probex.provenance import Provenance

MIN_TRAINING_MODELS: Final = 20

TrainProgress = Callable[[str, int, int], None]  # the step, how much of it is done, how much there is


def no_progress(step: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train; the defaults are those of the experts that ship.

    Attributes:
        kind: ``loradex``, ``probex`` or ``mvprobe``.
        labels: a CSV of labels; by default labels are read from headers and side-cars.
        layers: ``auto``, ``all``, a number of best layers, or names with commas.
        tree: the name of the model tree; by default the family of LoRAs, the folder's name of classifiers.
        text_encoder: the CLIP of a new space; by default the miniature's.
        base: the weights of the base model, so that full models can be read too.
        seed: of learned probes.
        device: of learned probes; by default CUDA if available.
        grown: folders of LoRAs that were grown from the base model, to be trained on beside those of the folder.
        like: a folder of LoRAs without labels, whose feature means are taken over in the end.
        like_deviations: take the standard deviations of their features over too.
        settings: of the expert's config, by name (``ExpertConfig.with_settings``), where they are not the default.
        provenance: of the expert, if it was not just trained on LoRAs.
    """

    kind: str = "loradex"
    labels: Path | None = None
    layers: str = "auto"
    tree: str | None = None
    text_encoder: str | None = None
    base: Path | None = None
    seed: int = 0
    device: str | None = None
    grown: tuple[Path, ...] = ()
    like: Path | None = None
    like_deviations: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def probe_device(self) -> str:
        """The device on which probes are trained."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, slots=True)
class TrainAnswer:
    """The expert that was trained, what it was trained on, and its metrics on validation concepts or models.

    Attributes:
        expert: the path of its checkpoint.
        layers: the layers that it reads, each with its alignment (cross-validated, closed form) or 1 (probes).
        models: the number of models in each split.
        concepts: the number of concepts in each split, or of categories.
        targets: what the expert was fitted to.
        left_out: the number of models that could not be used.
        grown: the number of models that were grown from the base model, beside real ones.
        grown_left_out: the number of those left out since the real models keep their concepts for validation or test.
        like: the number of LoRAs without labels whose means were taken over.
        validation: metrics on ``validation_models`` models.
        took_s: seconds.
    """

    expert: str
    tree: str
    family: str
    space: str
    kind: str
    layers: dict[str, float]
    models: dict[str, int]
    concepts: dict[str, int]
    targets: str
    left_out: int
    validation: dict[str, float]
    validation_models: int
    took_s: float
    grown: int = 0
    grown_left_out: int = 0
    like: int = 0

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex train --json``."""
        return asdict(self)


def check_options(options: TrainOptions) -> None:
    """Check options that the command line does not check.

    Raises:
        QueryError: an option has no valid value.
    """
    if options.layers.isdecimal() and not int(options.layers):
        raise QueryError(
            f"--layers: expected auto, all, a number from 1 or names, found {options.layers}; read at least one layer"
        )
    if options.kind != "loradex" and (options.grown or options.like):
        name = "--with" if options.grown else "--like"
        raise QueryError(
            f"{name}: expected --expert loradex, found {options.kind}, which cannot use it; leave one of both out"
        )
    if options.tree is not None and (Path(options.tree).name != options.tree or options.tree[:1] in ("", ".")):
        raise QueryError(
            f"--tree: expected a name that can be a file's, found {options.tree!r}; leave out slashes and a dot at the beginning"
        )


def check_tree_name(tree: str, out: Path, other_kind: str) -> None:
    """Check that no expert of the other kind has the same tree, in ``out`` or in the miniature.

    Args:
        tree: the name.
        out: an encoder folder.
        other_kind: the folder in it with experts of the other kind, ``experts`` or ``categories``.

    Raises:
        QueryError: one has.
    """
    for folder in (out, MINIATURE / "encoder"):
        if (taken := folder / other_kind / f"{tree}.safetensors").exists():
            raise QueryError(
                f"--tree: expected a name that no expert of the other kind has, found {tree}, which is {taken}'s; choose another"
            )
