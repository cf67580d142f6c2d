"""Features of many models on the disk, in half precision, so that memory need not hold them."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.errors import CheckpointError

SCALE: Final = 2.0**10  # features are shares of a unit norm: at most 1.42, most far below the smallest half
ITEM_BYTES: Final = 2


class FeatureFile:
    """Blocks (models, features), one after the other in a file, that are written some models at a time."""

    def __init__(self, path: Path, models: int, widths: Mapping[str, int]) -> None:
        """Make the file, unless it is there.

        Args:
            path: of the file.
            models: the number of rows of each block.
            widths: the number of columns of each block, by its name.

        Raises:
            CheckpointError: there is no room for it, or it cannot be made.
        """
        self.path, self.models, self.widths = path, models, dict(widths)
        self.starts, size = {}, 0
        for name, width in widths.items():
            self.starts[name] = size
            size += models * width * ITEM_BYTES
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            missing = size - (path.stat().st_size if path.exists() else 0)
            if missing > shutil.disk_usage(path.parent).free:
                raise CheckpointError(
                    f"{path.parent}: expected {missing / 1e9:.1f} GB of free space for what is read from {models} files, "
                    f"found {shutil.disk_usage(path.parent).free / 1e9:.1f}; make room, or name another folder with --out"
                )
            path.touch()
        except OSError as error:
            raise self._failed(error) from None

    def write(self, first: int, blocks: Mapping[str, Tensor]) -> None:
        """Write the rows (rows, features) of some blocks, from row ``first`` on.

        Raises:
            CheckpointError: the disk is full, or the file is gone.
        """
        try:
            with self.path.open("r+b") as file:
                for name, rows in blocks.items():
                    file.seek(self.starts[name] + first * self.widths[name] * ITEM_BYTES)
                    file.write((rows * SCALE).half().numpy().tobytes())
        except OSError as error:
            raise self._failed(error) from None

    def read(self, name: str) -> Tensor:
        """Read a block (models, features), in float32.

        Raises:
            CheckpointError: it was not written, or the file is gone.
        """
        size = self.models * self.widths[name] * ITEM_BYTES
        try:
            with self.path.open("rb") as file:
                file.seek(self.starts[name])
                raw = bytearray(file.read(size))
        except OSError as error:
            raise self._failed(error) from None
        if len(raw) != size:
            raise CheckpointError(f"{self.path}: expected {size} bytes of {name}, found {len(raw)}; train again")
        features = torch.frombuffer(raw, dtype=torch.float16).reshape(self.models, -1)
        return features.float().div_(SCALE)

    def _failed(self, error: OSError) -> CheckpointError:
        """The error of a file that cannot be used."""
        return CheckpointError(
            f"{self.path}: expected a file to keep features in, found {error.strerror}; make room and start again, it goes on from here"
        )
