"""``loradex train`` on whole models whose headers name the categories that they were trained on: an expert that tells those of others."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from loradex.app.experts.expert_metrics import Measured
from loradex.app.experts.training import (
    FEWEST,
    Report,
    TrainAnswer,
    TrainOptions,
    check,
    check_free,
    choose_layers,
    open_space,
    train_expert,
)
from loradex.app.paths import own_encoder
from loradex.retrieval.ancestor import keep_layers, near_layers, reach_of, write_mean
from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import WholeModel
from loradex.retrieval.lora.full_model import weights_of
from loradex.retrieval.lora.header import Header
from loradex.retrieval.training.build import make_category_expert
from loradex.retrieval.training.category_dataset import (
    KNOWN_MODELS,
    SPLITS,
    Classifier,
    category_study,
    find_classifiers,
)
from loradex.retrieval.training.fit import tells_categories
from loradex.retrieval.training.labelled_loras import pack_opened
from loradex.retrieval.training.layer_selection import shared_layers

FEWEST_JUDGED: Final = 10  # validation models, by which odds are told
ACCURACY: Final = "accuracy a category"


def train_any(
    zoo: Path, out: Path | None, options: TrainOptions, report: Report = lambda what, done, total: None
) -> TrainAnswer:
    """``loradex train``: on whole models where headers name categories, else on LoRAs.

    Raises:
        LoradexError: see ``train_expert`` and ``train_category_expert``.
    """
    out, found = out or own_encoder(), [] if options.labels else find_classifiers(zoo)
    return train_category_expert(zoo, found, out, options, report) if found else train_expert(zoo, out, options, report)


def train_category_expert(
    zoo: Path, found: Sequence[Classifier], out: Path, options: TrainOptions, report: Report
) -> TrainAnswer:
    """Train an expert on the ``found`` models of a folder and save it, with the ancestor's weights that it needs, into the encoder folder ``out``.

    Raises:
        LoradexError: there is too little to train on, an option makes no sense, or the text encoder or a file cannot be read.
    """
    started, tree = perf_counter(), options.tree or zoo.resolve().name
    check(replace(options, tree=tree))
    check_free(tree, out, "experts")
    kept, shapes = alike(zoo, found, options.base)
    known = [model for model in kept if model.split in KNOWN_MODELS]
    bare, paths = category_study({}, known), [model.path for model in known]
    with TemporaryDirectory() as room:
        base = options.base or mean_in(Path(room), known, shapes)
        opener = partial(WholeModel.open, base=base, family=tree)
        opened = [opener(path) for path in paths]
        near = near_layers(opened, shapes)
        encoder = open_space(out, options.text_encoder, bare.names)
        layers = choose_layers(options, paths, bare, {layer: shapes[layer] for layer in near}, opener, report)
        study = replace(bare, models=pack_opened(opened, layers, lambda done: report("reading", done, len(paths))))
        place = out / "categories" / f"{tree}.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        state = place.with_name(f".{tree}.training")
        config = tells_categories(options.kind, layers, len(study.names)).changed(seed=options.seed)
        epochs = config.training.epochs
        expert, right = make_category_expert(
            study,
            config,
            encoder,
            tree,
            tree,
            lambda epoch, score: report("epochs", epoch, epochs),
            state,
            options.where,
        )
        own = Path("ancestors", f"{tree}.safetensors")
        keep_layers(base, expert.layers, out / own)
        expert = replace(expert, base=own.as_posix(), farthest=reach_of(opened, expert.layers))
    expert.save(place)
    Measured(f"validation models of {zoo.name}, by which odds were told", {ACCURACY: asdict(right)}).save(place)
    state.unlink(missing_ok=True)
    return TrainAnswer(
        expert=str(place),
        tree=tree,
        family=tree,
        space=encoder.space.name,
        kind=options.kind,
        layers=getattr(expert.model, "alignment", dict.fromkeys(expert.layers, 1.0)),
        models=dict(Counter(model.split for model in kept)),
        concepts={"categories": len(study.names)},
        targets="the categories in the headers, by the difference to "
        + ("the base model" if options.base else "the mean of the models"),
        left_out=len(found) - len(kept),
        validation={ACCURACY: right.value},
        validation_models=right.n,
        took_s=round(perf_counter() - started, 1),
    )


def alike(
    zoo: Path, found: Sequence[Classifier], base: Path | None
) -> tuple[list[Classifier], dict[str, tuple[int, int]]]:
    """The models that have all layers which nearly all share, and those layers; with a base model, the ones that it has too.

    Raises:
        FileUnsupported: they are too few.
    """
    own = [layers_in(model.path) for model in found]
    shapes = shared_layers(own)
    if base:
        known = layers_in(base)
        shapes = {layer: shape for layer, shape in shapes.items() if known.get(layer) == shape}
    kept = [model for model, layers in zip(found, own, strict=True) if shapes.items() <= layers.items()]
    counts = {split: sum(model.split == split for model in kept) for split in SPLITS}
    if not shapes or counts["train"] < FEWEST or counts["val"] < FEWEST_JUDGED:
        raise FileUnsupported(
            f"{zoo}: expected at least {FEWEST} training and {FEWEST_JUDGED} validation models with layers in common{' with ' + str(base) if base else ''}, "
            f"found {counts} with {len(shapes)} layers; add models of one architecture"
        )
    return kept, shapes


def layers_in(path: Path) -> dict[str, tuple[int, int]]:
    """(out, in) of a model's layers."""
    return {layer: shape for layer, (_, shape) in weights_of(Header.read(path).layout).items()}


def mean_in(room: Path, known: Sequence[Classifier], layers: Collection[str]) -> Path:
    """The mean of the training models, in a file that takes the base model's place."""
    write_mean([model.path for model in known if model.split == "train"], layers, room / "mean.safetensors")
    return room / "mean.safetensors"
