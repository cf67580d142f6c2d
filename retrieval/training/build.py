"""From a study to an expert that can be used: chosen on validation models, calibrated on them, fitted on all that may be known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.measure.metrics import Metric, category_accuracy
from loradex.retrieval.probex.category_expert import CategoryExpert, Odds
from loradex.retrieval.probex.expert import Expert, Shapes
from loradex.retrieval.probex.familiarity import Familiarity
from loradex.retrieval.space.calibration import Calibration
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.training.category_dataset import KNOWN_MODELS, CategoryStudy
from loradex.retrieval.training.concept_dataset import KNOWN, TRAINING, VALIDATION, Aim, Study
from loradex.retrieval.training.fit import ExpertConfig, Fitted, Models, Subject, fit

Progress = Callable[[int, float], None]  # the epoch, and the score on validation models


def silent(epoch: int, score: float) -> None:
    """Tell nothing."""


def make_expert(
    study: Study,
    config: ExpertConfig,
    space: Space,
    tree: str,
    family: str,
    progress: Progress = silent,
    state: Path | None = None,
    device: str = "cpu",
) -> tuple[Expert, dict[str, float]]:
    """An expert, and what one fitted without the validation concepts says of them (``brief``).

    The second one gives the calibration and, for probes, the number of epochs. Without validation concepts the expert is not calibrated on new ones.
    """
    if config.aim is Aim.CLIP_TEXTS:
        config = config.changed(aim=Aim.LABELS)  # the space has its own place for texts
    validation, rows = study.rows(VALIDATION), study.rows(*KNOWN)
    chosen, final = chosen_and_final(
        study, rows, config.changed(against_background=True), len(validation) > 0, progress, state, device
    )
    assert chosen.background is not None
    assert final.background is not None
    judged = validation if len(validation) else study.rows(TRAINING)
    unseen = study.take(judged, chosen.model.config.layers)
    calibration = Calibration.fit(chosen.background, chosen.encode(unseen), study.labels, study.concept[judged])
    known = study.take(rows, final.model.config.layers)
    calibration = replace(calibration, background=final.background)
    expert = Expert(tree, family, space.name, shapes_in(known), final.model, calibration, Familiarity.of(known))
    return expert, study.brief(chosen.scores(unseen), judged)


def make_category_expert(
    study: CategoryStudy,
    config: ExpertConfig,
    encoder: Encoder,
    tree: str,
    family: str,
    progress: Progress = silent,
    state: Path | None = None,
    device: str = "cpu",
) -> tuple[CategoryExpert, Metric]:
    """An expert for whole models, and the share of categories that one fitted without the validation models says rightly of them, before odds are fitted.

    That one gives what scores are worth and, for probes, the number of epochs; the expert itself is fitted on training and validation models.
    """
    known, judged = study.rows(*KNOWN_MODELS), study.judged
    texts = encoder.encode_texts(study.names)
    chosen, final = chosen_and_final(study, known, config, True, progress, state, device)
    scores = chosen.scores(study.take(judged, chosen.model.config.layers))
    odds = Odds.fit(scores, study.members[judged])
    shapes = shapes_in(study.take(known[:1], final.model.config.layers))
    expert = CategoryExpert(tree, family, encoder.space.name, shapes, final.model, study.names, texts, odds)
    return expert, category_accuracy(scores.double().numpy(), study.members[judged].numpy())


def chosen_and_final(
    study: Subject,
    known: Tensor,
    config: ExpertConfig,
    early_stop: bool,
    progress: Progress,
    state: Path | None,
    device: str,
) -> tuple[Fitted, Fitted]:
    """One fitted on training models alone; and one on all that may be known, for probes as many epochs as the first was best at."""
    looks: dict[int, float] = {}

    def look(epoch: int, score: float) -> None:
        looks[epoch] = score
        progress(epoch, score)

    chosen = fit(study, study.rows(TRAINING), config, look, state, device, early_stop)
    if looks:
        config = config.changed(epochs=max(looks, key=lambda epoch: looks[epoch]))
    return chosen, fit(study, known, config, progress, state, device, early_stop=False)


def shapes_in(models: Models) -> Shapes:
    """(out, in) of each layer."""
    return {layer: (factors.up.shape[1], factors.down.shape[2]) for layer, factors in models.items()}
