"""Trains an expert on full models whose headers name the categories that they were trained on."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from loradex.app.experts.expert_metrics import ExpertMetrics
from loradex.app.experts.training_options import (
    MIN_TRAINING_MODELS,
    TrainAnswer,
    TrainOptions,
    TrainProgress,
    check_options,
    check_tree_name,
)
from loradex.app.experts.training_steps import choose_layers, open_encoder
from loradex.retrieval.ancestor import estimate_max_distance, layers_near_base, save_layers, save_mean
from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import FullModel
from loradex.retrieval.lora.full_model import layer_weights
from loradex.retrieval.lora.header import Header
from loradex.retrieval.training.build import build_category_expert
from loradex.retrieval.training.category_dataset import CATEGORY_FINAL_SPLITS, make_category_dataset
from loradex.retrieval.training.expert_config import category_config
from loradex.retrieval.training.labelled_classifiers import SPLITS, LabelledClassifier
from loradex.retrieval.training.layer_selection import shared_layers
from loradex.retrieval.training.packing import pack_opened_files

MIN_VALIDATION_MODELS: Final = 10  # to calibrate the probabilities
ACCURACY: Final = "accuracy a category"  # name of the metric


def train_category_expert(
    folder: Path, classifiers: Sequence[LabelledClassifier], out: Path, options: TrainOptions, progress: TrainProgress
) -> TrainAnswer:
    """Train an expert and save it, with the weights of the ancestor that it needs, into the encoder folder ``out``.

    Args:
        folder: the folder of the classifiers.
        classifiers: the models with their categories.
        out: the encoder folder, which is made if needed.
        options: how to train.
        progress: called with each step of the training.

    Raises:
        LoradexError: there are too few models, an option is not valid, or the text encoder or a file cannot be read.
    """
    started, tree = perf_counter(), options.tree or folder.resolve().name
    check_options(replace(options, tree=tree))
    check_tree_name(tree, out, "experts")
    selected, shapes = select_same_layers(folder, classifiers, options.base)
    known = [model for model in selected if model.split in CATEGORY_FINAL_SPLITS]
    without_weights, paths = make_category_dataset({}, known), [model.path for model in known]
    with TemporaryDirectory() as temporary:
        base = options.base or save_training_mean(Path(temporary), known, shapes)
        open_file = partial(FullModel.open, base=base, family=tree)
        models = [open_file(path) for path in paths]
        shapes_near_base = {layer: shapes[layer] for layer in layers_near_base(models, shapes)}
        encoder = open_encoder(out, options.text_encoder, without_weights.names)
        layers = choose_layers(options, paths, without_weights, shapes_near_base, open_file, progress)
        weights = pack_opened_files(models, layers, lambda done: progress("reading", done, len(paths)))
        dataset = replace(without_weights, models=weights)
        checkpoint = out / "categories" / f"{tree}.safetensors"
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        training_state = checkpoint.with_name(f".{tree}.training")
        config = category_config(options.kind, layers, len(dataset.names)).with_settings(seed=options.seed)
        epochs = config.training.epochs
        expert, accuracy = build_category_expert(
            dataset,
            config,
            encoder,
            tree,
            tree,
            lambda epoch, score: progress("epochs", epoch, epochs),
            training_state,
            options.probe_device,
        )
        ancestor = Path("ancestors", f"{tree}.safetensors")
        save_layers(base, expert.layers, out / ancestor)
        max_distance = estimate_max_distance(models, expert.layers)
        expert = replace(expert, base=ancestor.as_posix(), max_distance=max_distance)
    expert.save(checkpoint)
    measured_on = f"validation models of {folder.name}, on which the probabilities were calibrated"
    ExpertMetrics(measured_on, {ACCURACY: asdict(accuracy)}).save(checkpoint)
    training_state.unlink(missing_ok=True)
    return TrainAnswer(
        expert=str(checkpoint),
        tree=tree,
        family=tree,
        space=encoder.space.name,
        kind=options.kind,
        layers=getattr(expert.model, "alignment", dict.fromkeys(expert.layers, 1.0)),
        models=dict(Counter(model.split for model in selected)),
        concepts={"categories": len(dataset.names)},
        targets="the categories in the headers, by the difference to "
        + ("the base model" if options.base else "the mean of the models"),
        left_out=len(classifiers) - len(selected),
        validation={ACCURACY: accuracy.value},
        validation_models=accuracy.n,
        took_s=round(perf_counter() - started, 1),
    )


def select_same_layers(
    folder: Path, classifiers: Sequence[LabelledClassifier], base: Path | None
) -> tuple[list[LabelledClassifier], dict[str, tuple[int, int]]]:
    """Select the models that have all layers that nearly all models share, and the base model too if there is one.

    Returns:
        The models, and (out, in) of those layers.

    Raises:
        FileUnsupported: they are too few.
    """
    shapes_of_models = [read_shapes(model.path) for model in classifiers]
    shapes = shared_layers(shapes_of_models)
    if base:
        base_shapes = read_shapes(base)
        shapes = {layer: shape for layer, shape in shapes.items() if base_shapes.get(layer) == shape}
    selected = [
        model
        for model, model_shapes in zip(classifiers, shapes_of_models, strict=True)
        if shapes.items() <= model_shapes.items()
    ]
    counts = {split: sum(model.split == split for model in selected) for split in SPLITS}
    if not shapes or counts["train"] < MIN_TRAINING_MODELS or counts["val"] < MIN_VALIDATION_MODELS:
        raise FileUnsupported(
            f"{folder}: expected at least {MIN_TRAINING_MODELS} training and {MIN_VALIDATION_MODELS} validation models with layers in common"
            f"{' with ' + str(base) if base else ''}, found {counts} with {len(shapes)} layers; add models of one architecture"
        )
    return selected, shapes


def read_shapes(path: Path) -> dict[str, tuple[int, int]]:
    """(out, in) of the layers of a full model, from its header."""
    return {layer: shape for layer, (_, shape) in layer_weights(Header.read(path).layout).items()}


def save_training_mean(folder: Path, models: Sequence[LabelledClassifier], layers: Collection[str]) -> Path:
    """Save the mean of the training models, which stands in for the base model; returns the path."""
    path = folder / "mean.safetensors"
    save_mean([model.path for model in models if model.split == "train"], layers, path)
    return path
