"""``loradex train``: trains an expert on a folder of labelled models."""

from pathlib import Path

from loradex.app.experts.category_training import train_category_expert
from loradex.app.experts.lora_training import train_lora_expert
from loradex.app.experts.training_options import TrainAnswer, TrainOptions, TrainProgress, no_progress
from loradex.app.paths import user_encoder
from loradex.retrieval.training.labelled_classifiers import find_classifiers


def train_expert(
    folder: Path, out: Path | None, options: TrainOptions, progress: TrainProgress = no_progress
) -> TrainAnswer:
    """Train on classifiers if the headers of the models name categories, else on LoRAs.

    Args:
        folder: the models.
        out: the encoder folder to save the expert into; by default the user's own.
        options: how to train.
        progress: called with each step of the training.

    Raises:
        LoradexError: as ``train_category_expert`` and ``train_lora_expert``.
    """
    out = out or user_encoder()
    classifiers = [] if options.labels else find_classifiers(folder)
    if classifiers:
        return train_category_expert(folder, classifiers, out, options, progress)
    return train_lora_expert(folder, out, options, progress)
