"""From a study to an expert that can be used: chosen on validation concepts, calibrated on them, fitted on all that may be known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from retrieval.calibration import Calibration
from retrieval.encoder import Encoder
from retrieval.probex.categories import CategoryStudy
from retrieval.probex.category_expert import CategoryExpert, Odds
from retrieval.probex.expert import Expert
from retrieval.probex.familiarity import Familiarity
from retrieval.probex.fit import ExpertConfig, fit
from retrieval.probex.study import KNOWN, TRAINING, VALIDATION, Aim, Study
from retrieval.space import Space


def make_expert(
    study: Study,
    config: ExpertConfig,
    space: Space,
    tree: str,
    family: str,
    progress: Callable[[int, float], None] = lambda epoch, score: None,
    state: Path | None = None,
    device: str = "cpu",
) -> tuple[Expert, dict[str, float]]:
    """An expert, and what one fitted without the validation concepts says of them (``brief``).

    The second one gives the calibration and, for probes, the number of epochs. Without validation concepts the expert is not calibrated on new ones.
    """
    if config.aim is Aim.CLIP_TEXTS:
        config = config.changed(aim=Aim.LABELS)  # the space has its own place for texts
    looks: dict[int, float] = {}

    def look(epoch: int, score: float) -> None:
        looks[epoch] = score
        progress(epoch, score)

    validation = study.rows(VALIDATION)
    chosen = fit(study, study.rows(TRAINING), config.changed(against_background=True), look, state, device, len(validation) > 0)
    assert chosen.background is not None
    judged = validation if len(validation) else study.rows(TRAINING)
    unseen = study.take(judged, chosen.model.config.layers)
    calibration = Calibration.fit(chosen.background, chosen.encode(unseen), study.labels, study.concept[judged])
    if looks:
        config = config.changed(epochs=max(looks, key=lambda epoch: looks[epoch]))
    rows = study.rows(*KNOWN)
    final = fit(study, rows, config.changed(against_background=True), progress, state, device, early_stop=False)
    assert final.background is not None
    layers = final.model.config.layers
    known = study.take(rows, layers)
    shapes = {layer: (factors.up.shape[1], factors.down.shape[2]) for layer, factors in known.items()}
    calibration = replace(calibration, background=final.background)
    expert = Expert(tree, family, space.name, shapes, final.model, calibration, Familiarity.of(known))
    return expert, study.brief(chosen.scores(unseen), judged)


def make_category_expert(
    study: CategoryStudy, config: ExpertConfig, encoder: Encoder, tree: str, family: str, base: str | None
) -> tuple[CategoryExpert, float]:
    """An expert for whole models, and the share of categories that one fitted without the validation models says rightly of them.

    That one gives what scores are worth; the expert itself is fitted on training and validation models.
    """
    judged = study.judged
    chosen = fit(study, study.rows(TRAINING), config)
    scores = chosen.scores(study.take(judged, chosen.model.config.layers))
    odds = Odds.fit(scores, study.members[judged])
    right = float(((odds.probabilities(scores) > 0.5) == study.members[judged]).float().mean())
    known = study.rows(TRAINING, "val")
    final = fit(study, known, config, early_stop=False)
    shapes = {layer: (study.models[layer].up.shape[1], study.models[layer].down.shape[2]) for layer in final.model.config.layers}
    texts = encoder.encode_texts(study.names)
    return CategoryExpert(tree, family, encoder.space.name, shapes, final.model, study.names, texts, odds, base), right
