"""Trains an expert on labelled LoRAs of one family, and saves it beside the space that it maps into."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Final

import torch
from torch import Tensor

from loradex.app.experts.expert_metrics import ExpertMetrics
from loradex.app.experts.training_options import (
    MIN_TRAINING_MODELS,
    TrainAnswer,
    TrainOptions,
    TrainProgress,
    check_options,
    check_tree_name,
    no_progress,
)
from loradex.app.experts.training_steps import choose_layers, open_encoder
from loradex.app.pictures import picture_beside
from loradex.retrieval.encoder import EVERYDAY_FILE, LABELS_FILE, MIN_EVERYDAY_TEXTS, Encoder
from loradex.retrieval.errors import FileUnsupported, LoradexError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.header import Header
from loradex.retrieval.space.everyday import everyday_words
from loradex.retrieval.space.labels import LabelList
from loradex.retrieval.training.build import build_expert
from loradex.retrieval.training.concept_dataset import make_concept_dataset
from loradex.retrieval.training.expert_config import ExpertConfig, loradex_config, mvprobe_config, probex_config
from loradex.retrieval.training.labelled_loras import LabelledLora, find_labelled_loras
from loradex.retrieval.training.layer_selection import shared_layers
from loradex.retrieval.training.packing import pack_files

PICTURE_BATCH: Final = 64


def train_lora_expert(
    folder: Path, out: Path, options: TrainOptions, progress: TrainProgress = no_progress
) -> TrainAnswer:
    """Train an expert on the LoRAs of a folder and save it into the encoder folder ``out``, which is made if needed.

    Raises:
        LoradexError: there are too few LoRAs, an option is not valid, or the text encoder or a file cannot be read.
    """
    started = perf_counter()
    check_options(options)
    all_files = find_labelled_loras(folder, options.labels)
    files, family, shapes = select_one_family(all_files)
    tree = options.tree or family
    check_tree_name(tree, out, "categories")
    encoder = open_encoder(out, options.text_encoder, sorted({file.class_name for file in files}))
    paths = [file.path for file in files]
    pictures = encode_pictures_beside(paths, encoder, lambda done: progress("pictures", done, len(files)))
    without_weights = make_concept_dataset(files, {}, encoder, pictures)
    layers = choose_layers(options, paths, without_weights, shapes, LoraFile.open, progress)
    weights = pack_files(paths, layers, lambda done: progress("reading", done, len(files)))
    dataset = make_concept_dataset(files, weights, encoder, pictures)
    checkpoint = out / "experts" / f"{tree}.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    training_state = checkpoint.with_name(f".{tree}.training")
    config = config_from_options(options, layers)
    epochs = config.training.epochs
    expert, validation = build_expert(
        dataset,
        config,
        encoder.space,
        tree,
        family,
        lambda epoch, score: progress("epochs", epoch, epochs),
        training_state,
        options.probe_device,
    )
    base = str(Header.read(options.base).path.absolute()) if options.base else None
    replace(expert, base=base).save(checkpoint)
    validation_models = int((dataset.split == "val_holdout").sum())
    metrics = {name: {"value": value, "n": validation_models} for name, value in validation.items()}
    measured_on = f"LoRAs of the validation concepts of {folder.name}, by which the training was stopped"
    ExpertMetrics(measured_on, metrics).save(checkpoint)
    if not (out / LABELS_FILE).exists():
        LabelList(dataset.names, dataset.labels).save(out / LABELS_FILE)
    if encoder.everyday_texts is None and len(dataset.names) < MIN_EVERYDAY_TEXTS:
        LabelList(everyday_words(), encoder.encode_texts(everyday_words())).save(out / EVERYDAY_FILE)
    training_state.unlink(missing_ok=True)
    has_picture_targets = len(pictures) and not torch.equal(dataset.targets, dataset.labels[dataset.concept])
    return TrainAnswer(
        expert=str(checkpoint),
        tree=tree,
        family=family,
        space=encoder.space.name,
        kind=options.kind,
        layers=getattr(expert.model, "alignment", dict.fromkeys(expert.layers, 1.0)),
        models=dict(Counter(dataset.split.tolist())),
        concepts=dict(Counter(dataset.concept_split.tolist())),
        targets="pictures beside the models" if has_picture_targets else "names of the concepts",
        left_out=len(all_files) - len(files),
        validation=validation,
        validation_models=validation_models,
        took_s=round(perf_counter() - started, 1),
    )


def select_one_family(files: Sequence[LabelledLora]) -> tuple[list[LabelledLora], str, dict[str, tuple[int, int]]]:
    """Select the files of the most common family that share nearly all layers.

    Returns:
        The files, their family, and (out, in) of the layers that all of them have.

    Raises:
        FileUnsupported: they are too few.
    """
    opened = list(open_readable(files))
    family = Counter(lora.family for _, lora in opened).most_common(1)[0][0] if opened else "unknown"
    of_family = [(file, lora) for file, lora in opened if lora.family == family]
    shapes = shared_layers([lora.shapes for _, lora in of_family])
    selected = [file for file, lora in of_family if shapes.items() <= lora.shapes.items()]
    training = sum(file.split == "train" for file in selected)
    if training < MIN_TRAINING_MODELS or not shapes:
        raise FileUnsupported(
            f"expected at least {MIN_TRAINING_MODELS} labelled training LoRAs of one family with the same layers, found {training} of {family} "
            f"among {len(files)} labelled files; add more, or name the labels with --labels"
        )
    return selected, family, shapes


def open_readable(files: Sequence[LabelledLora]) -> Iterator[tuple[LabelledLora, LoraFile]]:
    """Open files; those that cannot be read are skipped."""
    for file in files:
        try:
            yield file, LoraFile.open(file.path)
        except LoradexError:
            continue


def encode_pictures_beside(
    paths: Sequence[Path], encoder: Encoder, progress: Callable[[int], None]
) -> dict[int, Tensor]:
    """Unit vectors (dim,) of the pictures beside files, by row; files without a picture are left out."""
    vectors: dict[int, Tensor] = {}
    for start in range(0, len(paths), PICTURE_BATCH):
        end = min(start + PICTURE_BATCH, len(paths))
        pictures = {row: picture for row in range(start, end) if (picture := picture_beside(paths[row]))}
        if pictures:
            vectors |= dict(zip(pictures, encoder.encode_pictures(list(pictures.values())), strict=True))
        progress(end)
    return vectors


def config_from_options(options: TrainOptions, layers: tuple[str, ...]) -> ExpertConfig:
    """The config of an expert of the chosen kind."""
    config = {
        "loradex": loradex_config(layers),
        "probex": probex_config(layers[0]),
        "mvprobe": mvprobe_config(layers[0]),
    }[options.kind]
    return config.with_settings(layers=layers, seed=options.seed)
