"""Trains an expert on labelled LoRAs of one family, and saves it beside the space that it maps into."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Final

import torch
import torch.nn.functional as F
from PIL import Image
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
from loradex.app.pictures import BadPicture, PictureFinder, read_picture
from loradex.retrieval.encoder import EVERYDAY_FILE, LABELS_FILE, MIN_EVERYDAY_TEXTS, Encoder
from loradex.retrieval.errors import FileUnsupported, LoradexError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.layers import ParsedLayers
from loradex.retrieval.lora.weights_folder import find_weights
from loradex.retrieval.probex.provenance import TRAINED, Provenance
from loradex.retrieval.space.everyday import everyday_words
from loradex.retrieval.space.labels import LabelList
from loradex.retrieval.training.build import build_expert
from loradex.retrieval.training.concept_dataset import FINAL_SPLITS, VALIDATION, make_concept_dataset
from loradex.retrieval.training.expert_config import ExpertConfig, loradex_config, mvprobe_config, probex_config
from loradex.retrieval.training.labelled_loras import LabelledLora, add_grown, find_labelled_loras
from loradex.retrieval.training.layer_selection import shared_layers
from loradex.retrieval.training.packing import pack_files
from loradex.retrieval.training.take_over import MAX_FILES, MIN_FILES, take_over
from loradex.retrieval.training.updates import FileUpdates

PICTURE_BATCH: Final = 16  # files


def train_lora_expert(
    folder: Path, out: Path, options: TrainOptions, progress: TrainProgress = no_progress
) -> TrainAnswer:
    """Train an expert on the LoRAs of a folder and save it into the encoder folder ``out``, which is made if needed.

    Raises:
        LoradexError: there are too few LoRAs, an option is not valid, or the text encoder or a file cannot be read.
    """
    started = perf_counter()
    check_options(options)
    real = find_labelled_loras(folder, options.labels)
    grown = [file for grown_folder in options.grown for file in find_labelled_loras(grown_folder)]
    all_files, grown_left_out = add_grown(real, grown)
    files, family, shapes = select_one_family(all_files)
    tree = options.tree or family
    check_tree_name(tree, out, "categories")
    like = find_loras_like(options.like, family) if options.like else []
    encoder = open_encoder(out, options.text_encoder, sorted({file.class_name for file in files}))
    paths = [file.path for file in files]
    pictures = encode_pictures_beside(paths, encoder, lambda done: progress("pictures", done, len(files)))
    dataset = make_concept_dataset(files, {}, encoder, pictures)
    streamed = options.kind == "loradex"
    layers = choose_layers(options, paths, dataset, shapes, LoraFile.open, progress, streamed)
    config = config_from_options(options, layers)
    updates = None
    if streamed:
        updates = FileUpdates([paths[row] for row in dataset.rows(*FINAL_SPLITS).tolist()])
    else:
        weights = pack_files(paths, layers, lambda done: progress("reading", done, len(files)))
        dataset = replace(dataset, models=weights)
    checkpoint = out / "experts" / f"{tree}.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    state = checkpoint.with_name(f".{tree}.sketches" if streamed else f".{tree}.training")
    expert, validation = build_expert(
        dataset, config, encoder.space, tree, family, progress, state, options.probe_device, updates
    )
    if like:
        expert = take_over(expert, like, options.like_deviations, lambda done, total: progress("likeness", done, total))
    base = str(Header.read(options.base).path.absolute()) if options.base else None
    final_rows = dataset.rows(*FINAL_SPLITS)
    grown_rows = dataset.kinds(final_rows) > 0
    made = options.provenance or Provenance(TRAINED, family, loras=int((~grown_rows).sum()))
    of_grown = final_rows if options.provenance else final_rows[grown_rows]
    provenance = replace(made, words=len(dataset.concept[of_grown].unique()))
    replace(expert, base=base, provenance=provenance).save(checkpoint)
    validation_models = int((dataset.split == VALIDATION).sum())
    metrics = {name: {"value": value, "n": validation_models} for name, value in validation.items()}
    measured_on = f"LoRAs of the validation concepts of {folder.name}, by which the training was stopped"
    ExpertMetrics(measured_on, metrics).save(checkpoint)
    if not (out / LABELS_FILE).exists():
        LabelList(dataset.names, dataset.labels).save(out / LABELS_FILE)
    if encoder.everyday_texts is None and len(dataset.names) < MIN_EVERYDAY_TEXTS:
        LabelList(everyday_words(), encoder.encode_texts(everyday_words())).save(out / EVERYDAY_FILE)
    shutil.rmtree(state) if streamed else state.unlink(missing_ok=True)
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
        grown=sum(file.grown for file in files),
        grown_left_out=grown_left_out,
        like=len(like),
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
    real = [row for row in opened if not row[0].grown] or opened
    family = Counter(family for _, family, _ in real).most_common(1)[0][0] if opened else "unknown"
    of_family = [(file, parsed.shapes) for file, found, parsed in opened if found == family]
    by_kind = [[shapes for file, shapes in of_family if file.grown is grown] for grown in (False, True)]
    first, *others = [shared_layers(shapes) for shapes in by_kind if shapes] or [{}]
    common = {layer: shape for layer, shape in first.items() if all(other.get(layer) == shape for other in others)}
    selected = [file for file, shapes in of_family if common.items() <= shapes.items()]
    training = sum(file.split == "train" for file in selected)
    if training < MIN_TRAINING_MODELS or not common:
        raise FileUnsupported(
            f"expected at least {MIN_TRAINING_MODELS} labelled training LoRAs of one family with the same layers, found {training} of {family} "
            f"among {len(files)} labelled files; add more, or name the labels with --labels"
        )
    return selected, family, common


def open_readable(files: Sequence[LabelledLora]) -> Iterator[tuple[LabelledLora, str, ParsedLayers]]:
    """Files with their families and layers, which files of one layout share; those that cannot be read are skipped."""
    for file in files:
        with suppress(LoradexError):
            lora = LoraFile.open(file.path)
            yield file, lora.family, lora.parsed


def find_loras_like(folder: Path, family: str) -> list[LoraFile]:
    """The LoRAs of a family below a folder, whatever is said of them; at most ``MAX_FILES``.

    Raises:
        FileUnsupported: they are too few.
    """
    found = list[LoraFile]()
    for path in find_weights(folder):
        with suppress(LoradexError):
            lora = LoraFile.open(path)
            if lora.family == family and len(found) < MAX_FILES:
                found.append(lora)
    if len(found) < MIN_FILES:
        raise FileUnsupported(
            f"{folder}: expected at least {MIN_FILES} LoRAs of {family} to be like, found {len(found)}; name a folder with more, or leave "
            "--like out"
        )
    return found


def encode_pictures_beside(
    paths: Sequence[Path], encoder: Encoder, progress: Callable[[int], None]
) -> dict[int, Tensor]:
    """Unit vectors (dim,) of the pictures beside files, by row; files without a picture are left out.

    Several pictures of a file give the mean of their vectors.
    """
    vectors: dict[int, Tensor] = {}
    finder = PictureFinder()
    for start in range(0, len(paths), PICTURE_BATCH):
        rows, pictures = list[int](), list[Image.Image]()
        for row in range(start, min(start + PICTURE_BATCH, len(paths))):
            for picture in finder.of(str(paths[row])):
                with suppress(BadPicture):
                    pictures.append(read_picture(picture.path))
                    rows.append(row)
        if pictures:
            of_rows, encoded = torch.tensor(rows), encoder.encode_pictures(pictures)
            vectors |= {row: F.normalize(encoded[of_rows == row].mean(0), dim=0) for row in set(rows)}
        progress(min(start + PICTURE_BATCH, len(paths)))
    return vectors


def config_from_options(options: TrainOptions, layers: tuple[str, ...]) -> ExpertConfig:
    """The config of an expert of the chosen kind."""
    config = {
        "loradex": loradex_config(layers),
        "probex": probex_config(layers[0]),
        "mvprobe": mvprobe_config(layers[0]),
    }[options.kind]
    return config.with_settings(layers=layers, seed=options.seed, **options.settings)
