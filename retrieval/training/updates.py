"""Models whose updates are read some at a time: files on the disk, or factors in memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from loradex.retrieval.errors import FileCorrupt
from loradex.retrieval.lora import LoraFile, WeightsFile
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.lora.update import Update
from loradex.retrieval.probex.batched_factors import LayerFactors, stack_layers, to_float32
from loradex.retrieval.probex.directions import BATCH
from loradex.retrieval.probex.serialization import Shapes

BATCH_BYTES: Final = 128 * 2**20  # of factors in one batch, in float32; twice as much is in memory while it is stacked
MAX_VALUE: Final = torch.finfo(torch.float16).max  # of a factor; squares of products of such numbers fit into float32


class Updates(ABC):
    """Models with the same layers."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of models."""

    @abstractmethod
    def shapes(self, layers: Sequence[str]) -> Shapes:
        """(out, in) of some layers."""

    @abstractmethod
    def batches(self, layers: Sequence[str], rows: Sequence[int]) -> Iterator[LayerFactors]:
        """The factors of some layers of the models ``rows``, in float32, some models at a time, in their order."""

    @abstractmethod
    def identity(self) -> list[str]:
        """What tells these models from others, by which a run that was stopped knows them again."""


class FileUpdates(Updates):
    """Files, which are opened when they are read and not before."""

    def __init__(self, paths: Sequence[Path], open_file: Callable[[Path], WeightsFile] = LoraFile.open) -> None:
        """Nothing is read yet."""
        self.paths, self.open_file = list(paths), open_file

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.paths)

    def shapes(self, layers: Sequence[str]) -> Shapes:
        """(out, in) of some layers in the first file, which all others must have too."""
        shapes = self.open_file(self.paths[0]).shapes
        return {layer: shapes[layer] for layer in layers}

    def batches(self, layers: Sequence[str], rows: Sequence[int]) -> Iterator[LayerFactors]:
        """As ``Updates.batches``; a batch takes ``BATCH_BYTES``, whatever the ranks.

        Raises:
            FileError: a file cannot be read, lacks a layer, or its updates exceed half precision.
        """
        width = sum(sum(shape) for shape in self.shapes(layers).values())
        batch, paths, rank = list[Mapping[str, Update]](), list[Path](), 0
        for path in (self.paths[row] for row in rows):
            updates = self.open_file(path).updates(layers)
            own_rank = max(update.rank for update in updates.values())
            if batch and (len(batch) + 1) * max(rank, own_rank) * width * 4 > BATCH_BYTES:
                yield stack_updates(batch, layers, paths)
                batch, paths, rank = [], [], 0
            batch.append(updates)
            paths.append(path)
            rank = max(rank, own_rank)
        if batch:
            yield stack_updates(batch, layers, paths)

    def identity(self) -> list[str]:
        """Their paths, sizes and times."""
        return [f"{path.resolve()} {(status := path.stat()).st_size} {status.st_mtime_ns}" for path in self.paths]


class PackedUpdates(Updates):
    """Models that are in memory."""

    def __init__(self, models: LayerFactors) -> None:
        """Keep the packed factors of each layer."""
        self.models = models

    def __len__(self) -> int:
        """Return the number of models."""
        return len(next(iter(self.models.values())))

    def shapes(self, layers: Sequence[str]) -> Shapes:
        """(out, in) of some layers."""
        return shapes_of_layers({layer: self.models[layer] for layer in layers})

    def batches(self, layers: Sequence[str], rows: Sequence[int]) -> Iterator[LayerFactors]:
        """``BATCH`` models at a time."""
        for batch in torch.tensor(rows).split(BATCH):
            yield {layer: to_float32(self.models[layer][batch]) for layer in layers}

    def identity(self) -> list[str]:
        """Nothing, since models in memory are read in one run."""
        return []


def stack_updates(
    updates: Sequence[Mapping[str, Update]], layers: Sequence[str], paths: Sequence[Path]
) -> LayerFactors:
    """Stack the updates of some layers of files.

    Raises:
        FileCorrupt: those of a file exceed half precision.
    """
    stacked = stack_layers(updates, layers)
    for layer, factors in stacked.items():
        if not (factors.largest <= MAX_VALUE).all():
            path = paths[int((factors.largest > MAX_VALUE).nonzero()[0])]
            raise FileCorrupt(
                f"{path}: layer {printable(layer)}: expected updates within half precision, found larger ones; leave the file out"
            )
    return stacked


def shapes_of_layers(models: LayerFactors) -> Shapes:
    """(out, in) of each layer."""
    return {layer: factors.shape for layer, factors in models.items()}
