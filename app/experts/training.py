"""``loradex train``: trains an expert on a folder of labelled models."""

from dataclasses import replace
from pathlib import Path

from loradex.app.experts.category_training import train_category_expert
from loradex.app.experts.lora_training import train_lora_expert
from loradex.app.experts.training_options import TrainAnswer, TrainOptions, TrainProgress, no_progress
from loradex.app.paths import user_encoder
from loradex.retrieval.errors import QueryError
from loradex.retrieval.training.labelled_classifiers import find_classifiers


def train_expert(
    folder: Path | None, out: Path | None, options: TrainOptions, progress: TrainProgress = no_progress
) -> TrainAnswer:
    """Train on classifiers if the headers of the models name categories, else on LoRAs.

    Args:
        folder: the models; without one, there are those grown from a base model alone (``options.grown``).
        out: the encoder folder to save the expert into; by default the user's own.
        options: how to train.
        progress: called with each step of the training.

    Raises:
        QueryError: there are no models.
        LoradexError: as ``train_category_expert`` and ``train_lora_expert``.
    """
    out = out or user_encoder()
    if folder is None:
        if not options.grown:
            raise QueryError(
                "expected a FOLDER of labelled models, or --with FOLDER of grown ones, found neither; name one"
            )
        folder, options = options.grown[0], replace(options, grown=options.grown[1:])
    classifiers = [] if options.labels or options.grown or options.like else find_classifiers(folder)
    if classifiers:
        return train_category_expert(folder, classifiers, out, options, progress)
    return train_lora_expert(folder, out, options, progress)
