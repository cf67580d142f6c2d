"""Which layers an expert should read: those that most files share, ranked by their alignment with the targets."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.probex.alignment import MAX_MODELS, alignment
from loradex.retrieval.probex.directions import principal_directions
from loradex.retrieval.probex.sketch import SketchConfig, sketch
from loradex.retrieval.training.packing import pack_opened_files

MIN_SHARE: Final = 0.9  # of the files must have a layer


def shared_layers(shapes: Sequence[Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    """(out, in) of the layers that nearly all models have in the same shape.

    Args:
        shapes: (out, in) by layer, of each model.
    """
    counts = Counter(layer for model in shapes for layer in model.items())
    return dict(layer for layer, count in sorted(counts.items()) if count >= MIN_SHARE * len(shapes))


def rank_layers(
    paths: Sequence[Path],
    layers: Sequence[str],
    targets: Tensor,
    concepts: Tensor,
    open_file: Callable[[Path], WeightsFile],
    progress: Callable[[int], None],
) -> dict[str, float]:
    """Alignment of each layer with the targets, best first; one layer is in memory at a time.

    Args:
        paths: the files; up to ``MAX_MODELS`` of them are read.
        layers: to rank.
        targets: (files, dim).
        concepts: (files,), integers.
        open_file: opens a path.
        progress: is called with the number of layers done.
    """
    sample = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))[:MAX_MODELS]
    files = [open_file(paths[row]) for row in sample.tolist()]
    config = SketchConfig(tuple(layers), outputs=16, inputs=16, quadratic=0.0)
    alignments = {}
    for number, layer in enumerate(layers):
        factors = pack_opened_files(files, [layer])[layer]
        (view,) = sketch(factors, *principal_directions(factors, config.outputs, config.inputs), config)
        alignments[layer] = alignment(view, targets[sample], concepts[sample], config.ridge)
        progress(number + 1)
    return dict(sorted(alignments.items(), key=lambda item: -item[1]))
