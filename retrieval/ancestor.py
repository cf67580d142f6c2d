"""The weights from which the whole models of a tree were fine-tuned: kept beside an expert, or, where nobody has them, the mean of the models.

ProbeX's authors tell trees by clusters of weights (Horwitz et al., CVPR 2025, section 3); the mean of models that lie near one ancestor is such a cluster's
centre, and lies near the ancestor.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from retrieval.lora import WholeModel
from retrieval.lora.header import Header
from retrieval.lora.whole import weights_of
from retrieval.probex.expert import NEAR
from retrieval.router import compared_distance


def keep_layers(source: Path, layers: Collection[str], place: Path) -> None:
    """Write some layers of a model, by the names of its tensors and with its metadata, in half precision; heads and what no expert reads stay out."""
    header = Header.read(source)
    names = [name for layer, (name, _) in weights_of(header.layout).items() if layer in layers]
    write(header.load(names), place, header.metadata)


def write_mean(models: Sequence[Path], layers: Collection[str], place: Path) -> None:
    """Write the mean of some layers that all models have, one layer in memory at a time, by the names of the first model's tensors."""
    headers = [Header.read(path) for path in models]
    tensors = [{layer: name for layer, (name, _) in weights_of(header.layout).items()} for header in headers]
    write({tensors[0][layer]: mean_of(one(header, names[layer]) for header, names in zip(headers, tensors, strict=True)) for layer in layers}, place, {})


def one(header: Header, name: str) -> Tensor:
    """One tensor of a file."""
    return header.load([name])[name]


def mean_of(tensors: Iterable[Tensor]) -> Tensor:
    """The mean of tensors of one shape."""
    total, count = torch.zeros(()), 0
    for tensor in tensors:
        total, count = total + tensor.float(), count + 1
    return total / count


def write(tensors: dict[str, Tensor], place: Path, metadata: Mapping[str, str]) -> None:
    """Put a file in its place when it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.part")
    save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, temporary, {"format": "pt"} | dict(metadata))
    temporary.replace(place)


def reach_of(models: Sequence[WholeModel], layers: Collection[str]) -> float:
    """How far models of the tree may lie from the base: twice as far as the farthest of those known, at least ``NEAR``, and no further than strangers do."""
    return min(max(NEAR, 2 * max(compared_distance(model, layers) for model in models)), 1.0)
