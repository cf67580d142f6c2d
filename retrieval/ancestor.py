"""The weights from which the whole models of a tree were fine-tuned: kept beside an expert, or, where nobody has them, the mean of the models.

ProbeX's authors tell trees by clusters of weights (Horwitz et al., CVPR 2025, section 3); the mean of models that lie near one ancestor is such a cluster's
centre, and lies near the ancestor.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.checkpoint import save_tensors
from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora import WholeModel
from loradex.retrieval.lora.full_model import weights_of
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.problems import shown
from loradex.retrieval.probex.expert import NEAR
from loradex.retrieval.router import compared_distance

STRANGE: Final = (
    1.0  # times its length from the base: weights that were trained on their own, such as new heads, lie further
)
LOOKED_AT: Final = 20  # models, to tell which layers stayed near
MOST_NEAR: Final = 0.95  # of the models lie within half of a tree's reach


def keep_layers(source: Path, layers: Collection[str], place: Path, dtype: torch.dtype | None = None) -> None:
    """Write some layers of a model, by the names of its tensors and with its metadata, as they are or in another precision.

    Raises:
        FileError: they cannot be read.
        CheckpointError: they cannot be written.
    """
    header = Header.read(source)
    names = [name for layer, (name, _) in weights_of(header.layout).items() if layer in layers]
    save_tensors(
        place, {name: tensor.to(dtype or tensor.dtype) for name, tensor in header.load(names).items()}, header.metadata
    )


def write_mean(models: Sequence[Path], layers: Collection[str], place: Path) -> None:
    """Write the mean of some layers that all models have, in single precision, by the names of the first model's tensors.

    Raises:
        FileCorrupt: weights are not finite.
        CheckpointError: it cannot be written.
    """
    headers = [Header.read(path) for path in models]
    tensors = [{layer: name for layer, (name, _) in weights_of(header.layout).items()} for header in headers]
    save_tensors(
        place,
        {tensors[0][layer]: mean_of(headers, [names[layer] for names in tensors]) for layer in layers},
        {"format": "pt"},
    )


def mean_of(headers: Sequence[Header], names: Sequence[str]) -> Tensor:
    """The mean of one tensor of each file."""
    total = torch.zeros(())
    for header, name in zip(headers, names, strict=True):
        tensor = header.load([name])[name].float()
        if not tensor.isfinite().all():
            raise FileCorrupt(
                f"{header.path}: layer {shown(name)}: expected finite weights, found NaN or infinity; the training run broke"
            )
        total = total + tensor
    return total / len(headers)


def near_layers(models: Sequence[WholeModel], layers: Collection[str]) -> list[str]:
    """The layers in which most of the models lie near their base; heads, which begin anew in each, do not.

    Raises:
        FileUnsupported: there is none, so they have no base in common.
    """
    some = models[:: max(1, len(models) // LOOKED_AT)][:LOOKED_AT]
    near = [layer for layer in layers if float(np.median([model.distance([layer]) for model in some])) < STRANGE]
    if not near:
        raise FileUnsupported(
            f"{models[0].path}: expected models fine-tuned from one base model, found none of {len(layers)} layers in which they lie near "
            f"{models[0].base.path}; train on models of one tree"
        )
    return near


def reach_of(models: Sequence[WholeModel], layers: Collection[str]) -> float:
    """How far models of the tree may lie from the base: twice as far as most of those known, at least ``NEAR``, and no further than strangers do."""
    return min(
        max(NEAR, 2 * float(np.quantile([compared_distance(model, layers) for model in models], MOST_NEAR))), STRANGE
    )
