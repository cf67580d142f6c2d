"""Packing: the updates of many files in memory, one pair of padded factors for each layer, in float16."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from loradex.retrieval.errors import FileCorrupt
from loradex.retrieval.lora import LoraFile, WeightsFile
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.probex.batched_factors import Factors


def pack_files(
    paths: Sequence[Path], layers: Sequence[str] | None = None, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Factors]:
    """Read layers of many LoRAs; all layers of the first one if ``layers`` is None.

    Raises:
        FileError: a file cannot be read.
        FileCorrupt: a file lacks a layer, or its updates exceed float16.
    """
    return pack_opened_files([LoraFile.open(path) for path in paths], layers, progress)


def pack_opened_files(
    files: Sequence[WeightsFile],
    layers: Sequence[str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Factors]:
    """Read layers of many files; all layers of the first one if ``layers`` is None.

    Raises:
        FileCorrupt: a file lacks a layer, or its updates exceed float16.
    """
    names = list(files[0].layers) if layers is None else list(layers)
    rank = max(max(file.ranks) for file in files)
    shapes = files[0].shapes
    packed = {
        name: Factors(
            torch.zeros(len(files), rank, shapes[name][1], dtype=torch.float16),
            torch.zeros(len(files), shapes[name][0], rank, dtype=torch.float16),
        )
        for name in names
    }
    for row, file in enumerate(files):
        for name, update in file.updates(names).items():
            packed[name].down[row, : update.rank] = update.down
            packed[name].up[row, :, : update.rank] = update.up
            if not packed[name].up[row].isfinite().all() or not packed[name].down[row].isfinite().all():
                raise FileCorrupt(
                    f"{file.path}: layer {printable(name)}: expected updates within half precision, found larger ones; leave the file out"
                )
        progress(row + 1)
    return packed


def packed_bytes(shape: tuple[int, int], rank: int, files: int) -> int:
    """The memory that one layer (out, in) of so many files takes when packed."""
    return 2 * rank * sum(shape) * files
