"""``loradex train`` on whole models whose headers name the categories that they were trained on: an expert that tells those of others."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

from app.measured import Measured
from app.places import own_encoder
from app.training import Report, TrainAnswer, TrainOptions, check, choose_layers, open_space, train_expert
from retrieval.ancestor import keep_layers, reach_of, write_mean
from retrieval.errors import FileUnsupported
from retrieval.lora import WholeModel
from retrieval.lora.header import Header
from retrieval.lora.whole import weights_of
from retrieval.probex.categories import KNOWN_MODELS, SPLITS, Classifier, category_study, find_classifiers
from retrieval.probex.fit import tells_categories
from retrieval.probex.labelled import pack_opened
from retrieval.probex.layers import shared_layers
from retrieval.probex.make import make_category_expert

FEWEST: Final = 20  # training models
FEWEST_JUDGED: Final = 2  # validation models, by which odds are told


def train_any(zoo: Path, out: Path | None, options: TrainOptions, report: Report = lambda what, done, total: None) -> TrainAnswer:
    """``loradex train``: on whole models where headers name categories, else on LoRAs.

    Raises:
        LoradexError: see ``train_expert`` and ``train_category_expert``.
    """
    out, found = out or own_encoder(), [] if options.labels else find_classifiers(zoo)
    return train_category_expert(zoo, found, out, options, report) if found else train_expert(zoo, out, options, report)


def train_category_expert(zoo: Path, found: Sequence[Classifier], out: Path, options: TrainOptions, report: Report) -> TrainAnswer:
    """Train an expert on the ``found`` models of a folder and save it, with the ancestor's weights that it needs, into the encoder folder ``out``.

    Raises:
        LoradexError: there is too little to train on, an option makes no sense, or the text encoder or a file cannot be read.
    """
    started, tree = perf_counter(), options.tree or zoo.resolve().name
    check(options)
    kept, shapes = alike(zoo, found, options.base)
    bare = category_study({}, kept)
    with ancestor_of(kept, shapes, out / "ancestors" / f".{tree}.mean.safetensors", options.base) as base:
        opener = partial(WholeModel.open, base=base, family=tree)
        encoder = open_space(out, options.text_encoder, bare.names)
        paths = [model.path for model in kept]
        layers = choose_layers(options, paths, bare, shapes, opener, report)
        opened = [opener(path) for path in paths]
        study = replace(bare, models=pack_opened(opened, layers, lambda done: report("reading", done, len(paths))))
        place = out / "categories" / f"{tree}.safetensors"
        place.parent.mkdir(parents=True, exist_ok=True)
        state = place.with_name(f".{tree}.training")
        config = tells_categories(options.kind, layers, len(study.names)).changed(seed=options.seed)
        epochs = config.training.epochs
        expert, right = make_category_expert(study, config, encoder, tree, tree, lambda epoch, score: report("epochs", epoch, epochs), state, options.where)
        own = Path("ancestors", f"{tree}.safetensors")
        keep_layers(base, expert.layers, out / own)
        reach = reach_of([opened[row] for row in study.rows(*KNOWN_MODELS).tolist()], expert.layers)
    replace(expert, base=own.as_posix(), reach=reach).save(place)
    tried = len(study.judged)
    Measured(f"validation models of {zoo.name}", {"accuracy a category": {"value": right, "n": tried, "chance": 0.5}}).save(place)
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
        targets="the categories in the headers, by the difference to " + ("the base model" if options.base else "the mean of the models"),
        left_out=len(found) - len(kept),
        validation={"accuracy a category": right},
        validation_models=tried,
        took_s=round(perf_counter() - started, 1),
    )


def alike(zoo: Path, found: Sequence[Classifier], base: Path | None) -> tuple[list[Classifier], dict[str, tuple[int, int]]]:
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


@contextmanager
def ancestor_of(found: Sequence[Classifier], layers: Collection[str], mean: Path, base: Path | None) -> Iterator[Path]:
    """The weights from which differences are taken: the named ones, or while they are needed the mean of the training models, written at ``mean``."""
    if base:
        yield base
        return
    try:
        write_mean([model.path for model in found if model.split == "train"], layers, mean)
        yield mean
    finally:
        mean.unlink(missing_ok=True)
