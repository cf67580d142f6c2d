"""The steps that training on LoRAs and on classifiers have in common: opening the space, choosing the layers."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from loradex.app.experts.training_options import TrainOptions, TrainProgress
from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import EVERYDAY_FILE, LABELS_FILE, SPACE_FILE, Encoder
from loradex.retrieval.errors import QueryError
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.training.dataset import Aim, Dataset
from loradex.retrieval.training.layer_selection import rank_layers
from loradex.retrieval.training.packing import packed_bytes

MAX_PACKED_BYTES: Final = 8 * 2**30  # of factors in memory, where they are not read file by file
TEMPLATES: Final = ("a photo of a {}",)  # as in ProbeX


def open_encoder(out: Path, text_encoder: str | None, names: Sequence[str]) -> Encoder:
    """Load the encoder folder ``out``, or make a new one.

    Args:
        out: the folder.
        text_encoder: the CLIP of a new space; by default the miniature's space is used.
        names: the concepts, whose mean becomes the centre of a new space.

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
    """Write a new space into the encoder folder ``out``; arguments as in ``open_encoder``."""
    out.mkdir(parents=True, exist_ok=True)
    if text_encoder is None:
        shutil.copytree(MINIATURE / "encoder" / "clip", out / "clip", dirs_exist_ok=True)
        shutil.copy(MINIATURE / "encoder" / SPACE_FILE, out)
        shutil.copy(MINIATURE / "encoder" / LABELS_FILE, out / EVERYDAY_FILE)
        return
    clip = TextEncoder.load(text_encoder, TEMPLATES)
    centre = clip.encode(names).mean(0)
    Space(text_encoder, TEMPLATES, centre, centre.clone()).save(out / "space.safetensors")


def choose_layers(
    options: TrainOptions,
    paths: Sequence[Path],
    dataset: Dataset,
    shapes: dict[str, tuple[int, int]],
    open_file: Callable[[Path], WeightsFile],
    progress: TrainProgress,
    streamed: bool = False,
) -> tuple[str, ...]:
    """Choose the layers to read, by the option ``--layers``.

    Args:
        options: ``layers`` and ``kind`` are used.
        paths: the files.
        dataset: their labels, in the same order; no weights are needed yet.
        shapes: (out, in) of the layers that all files have.
        open_file: opens one of the files.
        progress: called for each layer that is ranked.
        streamed: whether the files are read one after the other, so that any number of layers fits into memory.

    Raises:
        QueryError: the files do not have a layer that the option names.
    """
    if options.layers == "all" or (options.layers == "auto" and streamed):
        return tuple(shapes)
    if options.layers != "auto" and not options.layers.isdecimal():
        named = tuple(options.layers.split(","))
        missing = [layer for layer in named if layer not in shapes]
        if missing:
            raise QueryError(
                f"--layers: expected layers that nearly all files have, found {missing[0]!r}; the first of {len(shapes)} is {next(iter(shapes))}"
            )
        return named
    rank = 0 if options.layers.isdecimal() else max(max(open_file(path).ranks) for path in paths)
    bytes_of = {layer: packed_bytes(shape, rank, len(paths)) for layer, shape in shapes.items()}
    if options.layers == "auto" and options.kind == "loradex" and sum(bytes_of.values()) <= MAX_PACKED_BYTES:
        return tuple(shapes)
    rows = dataset.rows("train")
    ranking = rank_layers(
        [paths[row] for row in rows.tolist()],
        list(shapes),
        *dataset.regression_targets(rows, Aim.DRAWINGS),
        open_file,
        lambda done: progress("ranking layers", done, len(shapes)),
    )
    if options.layers.isdecimal():
        return tuple(ranking)[: int(options.layers)]
    max_layers = len(ranking) if options.kind == "loradex" else 1
    chosen: list[str] = []
    chosen_bytes = 0
    for layer in ranking:
        chosen_bytes += bytes_of[layer]
        if len(chosen) < max_layers and (chosen_bytes <= MAX_PACKED_BYTES or not chosen):
            chosen.append(layer)
    return tuple(chosen)
