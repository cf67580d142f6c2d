"""Build an expert from a dataset: fit on training models, calibrate on validation models, then fit on all of these."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.measure.metrics import Metric, category_accuracy
from loradex.retrieval.probex.category_expert import CategoryExpert, PlattScaling
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.familiarity import Familiarity
from loradex.retrieval.probex.probes import ProbeConfig
from loradex.retrieval.probex.sketch import SketchConfig
from loradex.retrieval.space.calibration import Background, Calibration
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.training.category_dataset import CATEGORY_FINAL_SPLITS, CategoryDataset
from loradex.retrieval.training.concept_dataset import FINAL_SPLITS, TRAINING, VALIDATION, ConceptDataset
from loradex.retrieval.training.dataset import Aim, Dataset
from loradex.retrieval.training.expert_config import ExpertConfig
from loradex.retrieval.training.fit import FittedModel, fit
from loradex.retrieval.training.sketches import sketch_updates
from loradex.retrieval.training.updates import PackedUpdates, Updates, shapes_of_layers

StepProgress = Callable[[str, int, int], None]  # the step, how much of it is done, how much there is
Progress = Callable[[int, float], None]  # the epoch, and the score on validation models


def ignore_progress(epoch: int, score: float) -> None:
    """Do nothing."""


def ignore_steps(step: str, done: int, total: int) -> None:
    """Do nothing."""


def build_expert(
    dataset: ConceptDataset,
    config: ExpertConfig,
    space: Space,
    tree: str,
    family: str,
    progress: StepProgress = ignore_steps,
    state: Path | None = None,
    device: str = "cpu",
    updates: Updates | None = None,
) -> tuple[Expert, dict[str, float]]:
    """Build an expert for LoRAs, fitted on ``FINAL_SPLITS``.

    A first model, fitted without the validation concepts, gives the calibration, the number of epochs of probes, and
    the metrics (``brief_metrics``) that are returned. Without validation concepts, they come from training models.

    Args:
        dataset: the models with their labels.
        config: of the model.
        space: that the expert maps into.
        tree: the name of the model tree.
        family: of the models.
        progress: is called with each step, how much of it is done, and how much there is.
        state: where a run keeps what it has done, from which it goes on after it was stopped: a folder for a closed
            form, a file for probes. It is left to the caller to delete.
        device: to train probes on.
        updates: the models of ``FINAL_SPLITS``, in the order of their rows, for a closed form; by default those that
            the dataset has in memory.
    """
    if config.aim is Aim.CLIP_TEXTS:
        config = config.with_settings(aim=Aim.LABELS)  # texts have their place in the space already
    if isinstance(config.model, ProbeConfig):
        return build_from_probes(dataset, config, space, tree, family, progress, state, device)
    updates = updates or PackedUpdates(dataset.take(dataset.rows(*FINAL_SPLITS), config.model.layers))
    with nullcontext(str(state)) if state else TemporaryDirectory() as folder:
        return build_from_sketches(dataset, config, space, tree, family, progress, Path(folder), updates)


def build_from_probes(
    dataset: ConceptDataset,
    config: ExpertConfig,
    space: Space,
    tree: str,
    family: str,
    progress: StepProgress,
    state: Path | None,
    device: str,
) -> tuple[Expert, dict[str, float]]:
    """Build an expert of learned probes from models in memory; arguments as in ``build_expert``."""
    validation, final_rows = dataset.rows(VALIDATION), dataset.rows(*FINAL_SPLITS)
    first, final = fit_twice(
        dataset,
        final_rows,
        config.with_settings(against_background=True),
        len(validation) > 0,
        lambda epoch, score: progress("epochs", epoch, config.training.epochs),
        state,
        device,
    )
    assert first.background is not None
    assert final.background is not None
    rows = validation if len(validation) else dataset.rows(TRAINING)
    vectors = first.encode(dataset.take(rows, first.model.config.layers))
    calibration = Calibration.fit(first.background, vectors, dataset.labels, dataset.concept[rows])
    calibration = replace(calibration, background=final.background)
    final_models = dataset.take(final_rows, final.model.config.layers)
    familiarity = Familiarity.fit(final_models)
    expert = Expert(tree, family, space.name, shapes_of_layers(final_models), final.model, calibration, familiarity)
    return expert, dataset.brief_metrics(first.background.z_scores(vectors, dataset.labels), rows)


def build_from_sketches(
    dataset: ConceptDataset,
    config: ExpertConfig,
    space: Space,
    tree: str,
    family: str,
    progress: StepProgress,
    folder: Path,
    updates: Updates,
) -> tuple[Expert, dict[str, float]]:
    """Build an expert of a closed form, going over the models twice; arguments as in ``build_expert``.

    The features of both fits are made in the same two passes.
    """
    assert isinstance(config.model, SketchConfig)
    settings, mixing = config.model, config.mixing
    final_rows = dataset.rows(*FINAL_SPLITS)
    splits, kinds = dataset.split[final_rows.numpy()], dataset.kinds(final_rows)
    targets, concepts = dataset.regression_targets(final_rows, config.aim)
    weights = torch.where(kinds > 0, mixing.grown_weight, 1.0)
    kinds = kinds if mixing.own_means else torch.zeros_like(kinds)
    training = torch.from_numpy(splits == TRAINING)
    sets = [training] if training.all() else [training, torch.ones_like(training)]
    sketches = sketch_updates(updates, settings, sets, folder, lambda done, total: progress("reading", done, total))
    fits = []
    for number, (members, sketched) in enumerate(zip(sets, sketches, strict=True)):
        rows = torch.nonzero(members).flatten()
        own_kinds = kinds[rows] if (kinds[rows] == 0).any() else torch.zeros_like(rows)
        fits.append(
            sketched.fit(
                rows,
                targets[rows],
                concepts[rows],
                settings,
                weights=weights[rows],
                kinds=own_kinds,
                progress=lambda done, total, past=number: progress("fitting", past * total + done, len(sets) * total),  # type: ignore[misc]
            )
        )
    first, final = fits[0], fits[-1]
    validation = torch.from_numpy(np.flatnonzero(splits == VALIDATION))
    rows = validation if len(validation) else torch.nonzero(training).flatten()
    means = {layer: mean[kinds[rows].clamp_max(len(mean) - 1)] for layer, mean in first.means.items()}
    vectors = sketches[0].encode(rows, first.model, means)
    background, concept = Background.fit(first.vectors), dataset.concept[final_rows[rows]]
    calibration = Calibration.fit(background, vectors, dataset.labels, concept)
    calibration = replace(calibration, background=Background.fit(final.vectors))
    layers = final.model.config.layers
    shapes = updates.shapes(layers)
    familiarity = sketches[-1].familiarity(torch.arange(len(updates)), layers)
    expert = Expert(tree, family, space.name, shapes, final.model, calibration, familiarity)
    return expert, dataset.brief_metrics(background.z_scores(vectors, dataset.labels), final_rows[rows])


def build_category_expert(
    dataset: CategoryDataset,
    config: ExpertConfig,
    encoder: Encoder,
    tree: str,
    family: str,
    progress: Progress = ignore_progress,
    state: Path | None = None,
    device: str = "cpu",
) -> tuple[CategoryExpert, Metric]:
    """Build an expert for classifiers, fitted on ``CATEGORY_FINAL_SPLITS``.

    A first model, fitted without the validation models, gives the scaling of scores, the number of epochs of probes,
    and the accuracy for each category that is returned.
    """
    final_rows, rows = dataset.rows(*CATEGORY_FINAL_SPLITS), dataset.validation_rows
    texts = encoder.encode_texts(dataset.names)
    first, final = fit_twice(dataset, final_rows, config, True, progress, state, device)
    scores = first.scores(dataset.take(rows, first.model.config.layers))
    scaling = PlattScaling.fit(scores, dataset.members[rows])
    shapes = shapes_of_layers(dataset.take(final_rows[:1], final.model.config.layers))
    expert = CategoryExpert(tree, family, encoder.space.name, shapes, final.model, dataset.names, texts, scaling)
    return expert, category_accuracy(scores.double().numpy(), dataset.members[rows].numpy())


def fit_twice(
    dataset: Dataset,
    final_rows: Tensor,
    config: ExpertConfig,
    early_stop: bool,
    progress: Progress,
    state: Path | None,
    device: str,
) -> tuple[FittedModel, FittedModel]:
    """Fit a model on training models alone, and one on ``final_rows`` with the best number of epochs of the first."""
    scores: dict[int, float] = {}

    def record(epoch: int, score: float) -> None:
        scores[epoch] = score
        progress(epoch, score)

    first = fit(dataset, dataset.rows(TRAINING), config, record, state, device, early_stop)
    if scores:
        config = config.with_settings(epochs=max(scores, key=lambda epoch: scores[epoch]))
    return first, fit(dataset, final_rows, config, progress, state, device, early_stop=False)
