"""``loradex train``: an expert for a folder of labelled LoRAs, put beside the space that it maps into."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import torch
from torch import Tensor

from loradex.app.experts.expert_metrics import Measured
from loradex.app.paths import MINIATURE
from loradex.app.previews import picture_beside
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileUnsupported, LoradexError, QueryError
from loradex.retrieval.lora import LoraFile, WeightsFile
from loradex.retrieval.lora.header import Header
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.labels import LabelList
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.training.build import make_expert
from loradex.retrieval.training.concept_dataset import Aim, study_of
from loradex.retrieval.training.fit import ExpertConfig, Subject, loradex, mvprobe, probex
from loradex.retrieval.training.labelled_loras import LabelledFile, find_labelled, pack
from loradex.retrieval.training.layer_selection import bytes_of, rank_layers, shared_layers

LARGEST_PACK: Final = 8 * 2**30  # bytes of factors in memory
FEWEST: Final = 20  # training models
TEMPLATES: Final = ("a photo of a {}",)  # as ProbeX has it
BATCH: Final = 64

Report = Callable[[str, int, int], None]  # what is done, how much of it, how much in all


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train; the defaults are what ships."""

    kind: str = "loradex"
    labels: Path | None = None
    layers: str = "auto"  # or "all", a number of best layers, or names with commas
    tree: str | None = None  # the family, if not said
    text_encoder: str | None = None  # of a new space; the miniature's if not said
    base: Path | None = None  # the base model's weights, so that whole models can be read too
    seed: int = 0
    device: str | None = None

    @property
    def where(self) -> str:
        """The device of probes."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, slots=True)
class TrainAnswer:
    """What was trained, on what, and what it says of concepts that it had not seen."""

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

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex train --json``."""
        return asdict(self)


def train_expert(
    zoo: Path, out: Path, options: TrainOptions, report: Report = lambda what, done, total: None
) -> TrainAnswer:
    """Train an expert on a zoo and save it into the encoder folder ``out``, which is made if there is none.

    Raises:
        LoradexError: there is too little to train on, an option makes no sense, or the text encoder or a file cannot be read.
    """
    started = perf_counter()
    check(options)
    found = find_labelled(zoo, options.labels)
    files, family, shapes = of_one_family(found)
    tree = options.tree or family
    check_free(tree, out, "categories")
    encoder = open_space(out, options.text_encoder, sorted({file.class_name for file in files}))
    paths = [file.path for file in files]
    pictures = picture_vectors(paths, encoder, lambda done: report("pictures", done, len(files)))
    bare = study_of(files, {}, encoder, pictures)
    layers = choose_layers(options, paths, bare, shapes, LoraFile.open, report)
    models = pack(paths, layers, lambda done: report("reading", done, len(files)))
    study = study_of(files, models, encoder, pictures)
    place = out / "experts" / f"{tree}.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    state = place.with_name(f".{tree}.training")
    config = recipe(options, layers)
    epochs = config.training.epochs
    expert, validation = make_expert(
        study,
        config,
        encoder.space,
        tree,
        family,
        lambda epoch, score: report("epochs", epoch, epochs),
        state,
        options.where,
    )
    replace(expert, base=str(Header.read(options.base).path.absolute()) if options.base else None).save(place)
    tried = int((study.split == "val_holdout").sum())
    metrics = {name: {"value": value, "n": tried} for name, value in validation.items()}
    Measured(f"LoRAs of the validation concepts of {zoo.name}, by which the training was stopped", metrics).save(place)
    if not (out / "labels.safetensors").exists():
        LabelList(study.names, study.labels).save(out / "labels.safetensors")
    state.unlink(missing_ok=True)
    return TrainAnswer(
        expert=str(place),
        tree=tree,
        family=family,
        space=encoder.space.name,
        kind=options.kind,
        layers=getattr(expert.model, "alignment", dict.fromkeys(expert.layers, 1.0)),
        models=dict(Counter(study.split.tolist())),
        concepts=dict(Counter(study.concept_split.tolist())),
        targets="pictures beside the models"
        if len(pictures) and not torch.equal(study.targets, study.labels[study.concept])
        else "names of the concepts",
        left_out=len(found) - len(files),
        validation=validation,
        validation_models=tried,
        took_s=round(perf_counter() - started, 1),
    )


def check(options: TrainOptions) -> None:
    """Refuse options that make no sense.

    Raises:
        QueryError: with which and why.
    """
    if options.layers.isdecimal() and not int(options.layers):
        raise QueryError(
            f"--layers: expected auto, all, a number from 1 or names, found {options.layers}; read at least one layer"
        )
    if options.tree is not None and (Path(options.tree).name != options.tree or options.tree[:1] in ("", ".")):
        raise QueryError(
            f"--tree: expected a name that can be a file's, found {options.tree!r}; leave out slashes and a dot at the beginning"
        )


def check_free(tree: str, out: Path, others: str) -> None:
    """Refuse the name of a tree that an expert of the other kind has, here or in what ships.

    Raises:
        QueryError: it is taken.
    """
    for folder in (out, MINIATURE / "encoder"):
        if (taken := folder / others / f"{tree}.safetensors").exists():
            raise QueryError(
                f"--tree: expected a name that no expert of the other kind has, found {tree}, which is {taken}'s; choose another"
            )


def of_one_family(found: Sequence[LabelledFile]) -> tuple[list[LabelledFile], str, dict[str, tuple[int, int]]]:
    """The files of the most common family that have all layers which nearly all of them share, that family, and those layers.

    Raises:
        FileUnsupported: they are too few.
    """
    opened = list(readable(found))
    family = Counter(lora.family for _, lora in opened).most_common(1)[0][0] if opened else "unknown"
    alike = [(file, lora) for file, lora in opened if lora.family == family]
    shapes = shared_layers([lora.shapes for _, lora in alike])
    kept = [file for file, lora in alike if shapes.items() <= lora.shapes.items()]
    training = sum(file.split == "train" for file in kept)
    if training < FEWEST or not shapes:
        raise FileUnsupported(
            f"expected at least {FEWEST} labelled training LoRAs of one family with the same layers, found {training} of {family} among {len(found)} "
            f"labelled files; add more, or name the labels with --labels"
        )
    return kept, family, shapes


def readable(found: Sequence[LabelledFile]) -> Iterator[tuple[LabelledFile, LoraFile]]:
    """The files that can be read."""
    for file in found:
        try:
            yield file, LoraFile.open(file.path)
        except LoradexError:
            continue


def open_space(out: Path, text_encoder: str | None, names: Sequence[str]) -> Encoder:
    """The encoder in a folder; a new one has the text encoder named, else the miniature's, and its centres are those of the concepts.

    Raises:
        QueryError: the folder has another text encoder than the one named.
        CheckpointError: the text encoder cannot be loaded.
    """
    if not (out / "space.safetensors").exists():
        make_space(out, text_encoder, names)
    encoder = Encoder.load(out)
    if text_encoder and encoder.space.text_encoder != text_encoder:
        raise QueryError(
            f"{out}: expected text encoder {text_encoder}, found a space of {encoder.space.text_encoder}; name another folder with --out"
        )
    return encoder


def make_space(out: Path, text_encoder: str | None, names: Sequence[str]) -> None:
    """A new space."""
    out.mkdir(parents=True, exist_ok=True)
    if text_encoder is None:
        shutil.copytree(MINIATURE / "encoder" / "clip", out / "clip", dirs_exist_ok=True)
        shutil.copy(MINIATURE / "encoder" / "space.safetensors", out)
        return
    clip = TextEncoder.load(text_encoder, TEMPLATES)
    centre = clip.encode(names).mean(0)
    Space(text_encoder, TEMPLATES, centre, centre.clone()).save(out / "space.safetensors")


def picture_vectors(paths: Sequence[Path], encoder: Encoder, progress: Callable[[int], None]) -> dict[int, Tensor]:
    """Where CLIP puts the pictures that lie beside files, by row."""
    found: dict[int, Tensor] = {}
    for start in range(0, len(paths), BATCH):
        pictures = {
            row: picture
            for row in range(start, min(start + BATCH, len(paths)))
            if (picture := picture_beside(paths[row]))
        }
        if pictures:
            found |= dict(zip(pictures, encoder.encode_pictures(list(pictures.values())), strict=True))
        progress(min(start + BATCH, len(paths)))
    return found


def choose_layers(
    options: TrainOptions,
    paths: Sequence[Path],
    study: Subject,
    shapes: dict[str, tuple[int, int]],
    opener: Callable[[Path], WeightsFile],
    report: Report,
) -> tuple[str, ...]:
    """The layers to read, by the option ``--layers``; ``study`` need not hold any yet.

    Raises:
        QueryError: a named layer is not in the files.
    """
    rank = max(max(opener(path).ranks) for path in paths)
    room = LARGEST_PACK - sum(bytes_of(shape, rank, len(paths)) for shape in shapes.values())
    if options.layers == "all" or (options.layers == "auto" and options.kind == "loradex" and room >= 0):
        return tuple(shapes)
    if options.layers != "auto" and not options.layers.isdecimal():
        named = tuple(options.layers.split(","))
        missing = [layer for layer in named if layer not in shapes]
        if missing:
            raise QueryError(
                f"--layers: expected layers that nearly all files have, found {missing[0]!r}; the first of {len(shapes)} is {next(iter(shapes))}"
            )
        return named
    rows = study.rows("train")
    train = [paths[row] for row in rows.tolist()]
    ranking = rank_layers(
        train,
        list(shapes),
        *study.aims(rows, Aim.DRAWINGS),
        opener,
        lambda done: report("ranking layers", done, len(shapes)),
    )
    if options.layers.isdecimal():
        return tuple(ranking)[: int(options.layers)]
    most, size = 1 if options.kind != "loradex" else len(ranking), 0
    kept: list[str] = []
    for layer in ranking:
        size += bytes_of(shapes[layer], rank, len(paths))
        if len(kept) < most and (size <= LARGEST_PACK or not kept):
            kept.append(layer)
    return tuple(kept)


def recipe(options: TrainOptions, layers: tuple[str, ...]) -> ExpertConfig:
    """The config by the name that people use."""
    config = {"loradex": loradex(layers), "probex": probex(layers[0]), "mvprobe": mvprobe(layers[0])}[options.kind]
    return config.changed(layers=layers, seed=options.seed)
