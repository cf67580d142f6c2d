"""Build an expert from a dataset: fit on training models, calibrate on validation models, then fit on all of these."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.measure.metrics import Metric, category_accuracy
from loradex.retrieval.probex.batched_factors import LayerFactors
from loradex.retrieval.probex.category_expert import CategoryExpert, PlattScaling
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.familiarity import Familiarity
from loradex.retrieval.probex.serialization import Shapes
from loradex.retrieval.space.calibration import Calibration
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.training.category_dataset import CATEGORY_FINAL_SPLITS, CategoryDataset
from loradex.retrieval.training.concept_dataset import FINAL_SPLITS, TRAINING, VALIDATION, ConceptDataset
from loradex.retrieval.training.dataset import Aim, Dataset
from loradex.retrieval.training.expert_config import ExpertConfig
from loradex.retrieval.training.fit import FittedModel, fit

Progress = Callable[[int, float], None]  # the epoch, and the score on validation models


def ignore_progress(epoch: int, score: float) -> None:
    """Do nothing."""


def build_expert(
    dataset: ConceptDataset,
    config: ExpertConfig,
    space: Space,
    tree: str,
    family: str,
    progress: Progress = ignore_progress,
    state: Path | None = None,
    device: str = "cpu",
) -> tuple[Expert, dict[str, float]]:
    """Build an expert for LoRAs, fitted on ``FINAL_SPLITS``.

    A first model, fitted without the validation concepts, gives the calibration, the number of epochs of probes, and
    the metrics (``brief_metrics``) that are returned. Without validation concepts, they come from training models.
    """
    if config.aim is Aim.CLIP_TEXTS:
        config = config.with_settings(aim=Aim.LABELS)  # texts have their place in the space already
    validation, final_rows = dataset.rows(VALIDATION), dataset.rows(*FINAL_SPLITS)
    first, final = fit_twice(
        dataset,
        final_rows,
        config.with_settings(against_background=True),
        len(validation) > 0,
        progress,
        state,
        device,
    )
    assert first.background is not None
    assert final.background is not None
    rows = validation if len(validation) else dataset.rows(TRAINING)
    models = dataset.take(rows, first.model.config.layers)
    calibration = Calibration.fit(first.background, first.encode(models), dataset.labels, dataset.concept[rows])
    calibration = replace(calibration, background=final.background)
    final_models = dataset.take(final_rows, final.model.config.layers)
    familiarity = Familiarity.fit(final_models)
    expert = Expert(tree, family, space.name, shapes_of_layers(final_models), final.model, calibration, familiarity)
    return expert, dataset.brief_metrics(first.scores(models), rows)


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


def shapes_of_layers(models: LayerFactors) -> Shapes:
    """(out, in) of each layer."""
    return {layer: (factors.up.shape[1], factors.down.shape[2]) for layer, factors in models.items()}
