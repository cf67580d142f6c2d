"""Ancestors: the weights from which the full models of a tree were fine-tuned.

They are stored beside an expert. If they are not known, the mean of the models takes their place: ProbeX's authors find
model trees by clusters of weights (Horwitz et al., CVPR 2025, section 3), and the mean is the centre of such a cluster.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.checkpoint import save_tensors
from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora import FullModel
from loradex.retrieval.lora.full_model import layer_weights
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.probex.expert import DEFAULT_MAX_DISTANCE
from loradex.retrieval.router import distance_to_base

STRANGER_DISTANCE: Final = 1.0  # relative to the base; weights not trained from it, such as new heads, lie further away
SAMPLED_MODELS: Final = 20  # to find the layers near the base
NEAR_QUANTILE: Final = 0.95  # of the distances of models to the base; twice this quantile is the allowed distance


def save_layers(source: Path, layers: Collection[str], path: Path, dtype: torch.dtype | None = None) -> None:
    """Write some layers of a model under their tensors' names, with its metadata, in their own or another data type.

    Raises:
        FileError: the model cannot be read.
        CheckpointError: the file cannot be written.
    """
    header = Header.read(source)
    names = [name for layer, (name, _) in layer_weights(header.layout).items() if layer in layers]
    tensors = {name: tensor.to(dtype or tensor.dtype) for name, tensor in header.load(names).items()}
    save_tensors(path, tensors, header.metadata)


def save_mean(models: Sequence[Path], layers: Collection[str], path: Path) -> None:
    """Write the mean of layers that all models have, in float32, under the names of the first model's tensors.

    Raises:
        FileCorrupt: weights are not finite.
        CheckpointError: the file cannot be written.
    """
    headers = [Header.read(model) for model in models]
    names = [{layer: name for layer, (name, _) in layer_weights(header.layout).items()} for header in headers]
    means = {names[0][layer]: mean_tensor(headers, [by_layer[layer] for by_layer in names]) for layer in layers}
    save_tensors(path, means, {"format": "pt"})


def mean_tensor(headers: Sequence[Header], names: Sequence[str]) -> Tensor:
    """The mean of one tensor of each file; ``names`` has its name in each."""
    total = torch.zeros(())
    for header, name in zip(headers, names, strict=True):
        tensor = header.load([name])[name].float()
        if not tensor.isfinite().all():
            raise FileCorrupt(
                f"{header.path}: layer {printable(name)}: expected finite weights, found NaN or infinity; the training run broke"
            )
        total = total + tensor
    return total / len(headers)


def layers_near_base(models: Sequence[FullModel], layers: Collection[str]) -> list[str]:
    """The layers whose median distance to the base is small; heads, which are new in each model, are not among them.

    Raises:
        FileUnsupported: there are none, so the models have no base in common.
    """
    sample = models[:: max(1, len(models) // SAMPLED_MODELS)][:SAMPLED_MODELS]
    near = [
        layer for layer in layers if float(np.median([model.distance([layer]) for model in sample])) < STRANGER_DISTANCE
    ]
    if not near:
        raise FileUnsupported(
            f"{models[0].path}: expected models fine-tuned from one base model, found none of {len(layers)} layers in which they lie near "
            f"{models[0].base.path}; train on models of one tree"
        )
    return near


def estimate_max_distance(models: Sequence[FullModel], layers: Collection[str]) -> float:
    """The distance to the base up to which models count as its fine-tunes.

    Twice the distance that most of the given models keep, within ``DEFAULT_MAX_DISTANCE`` to ``STRANGER_DISTANCE``.
    """
    distances = [distance_to_base(model, layers) for model in models]
    return min(max(DEFAULT_MAX_DISTANCE, 2 * float(np.quantile(distances, NEAR_QUANTILE))), STRANGER_DISTANCE)
