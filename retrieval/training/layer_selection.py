"""Which layers an expert should read: those that most files have, the best aligned first, as many as memory holds."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.probex.alignment import MOST_MODELS, alignment
from loradex.retrieval.probex.sketch import SketchConfig, principal_directions, sketch
from loradex.retrieval.training.labelled_loras import pack_opened

SHARED: Final = 0.9  # of the files must have a layer


def shared_layers(models: Sequence[Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    """(out, in) of the layers that nearly all models have in one shape, of those of each."""
    counts = Counter(layer for model in models for layer in model.items())
    return dict(layer for layer, count in sorted(counts.items()) if count >= SHARED * len(models))


def rank_layers(
    paths: Sequence[Path],
    layers: Sequence[str],
    targets: Tensor,
    concepts: Tensor,
    opener: Callable[[Path], WeightsFile],
    progress: Callable[[int], None],
) -> dict[str, float]:
    """The alignment of each layer with ``targets`` (files, dim), measured on up to ``MOST_MODELS`` files, one layer in memory at a time; the best first."""
    drawn = torch.randperm(len(paths), generator=torch.Generator().manual_seed(0))[:MOST_MODELS]
    opened = [opener(paths[row]) for row in drawn.tolist()]
    config = SketchConfig(tuple(layers), outputs=16, inputs=16, quadratic=0.0)
    said = {}
    for number, layer in enumerate(layers):
        factors = pack_opened(opened, [layer])[layer]
        (view,) = sketch(factors, *principal_directions(factors, config), config)
        said[layer] = alignment(view, targets[drawn], concepts[drawn], config.ridge)
        progress(number + 1)
    return dict(sorted(said.items(), key=lambda item: -item[1]))


def bytes_of(shape: tuple[int, int], rank: int, files: int) -> int:
    """How much memory one layer of ``files`` models takes, packed in half precision."""
    return 2 * rank * sum(shape) * files
