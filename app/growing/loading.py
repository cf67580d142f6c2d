"""The base model that is grown from: found by its family or path, and loaded as a denoiser."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loradex.app.bases.bases import Bases
from loradex.app.bases.errors import NoBase
from loradex.app.bases.shipped import SHIPPED
from loradex.app.drawing.loaded_models import one_thread
from loradex.app.growing.denoiser import Denoiser
from loradex.app.miniature.pipeline import CONSTANT_PROMPT
from loradex.app.paths import TREES
from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import QueryError
from loradex.retrieval.lora.family import UNKNOWN

NOTHING: Final = "a picture"  # a prompt that names nothing
GPU_BATCH: Final = {"sdxl": 8, "sd3": 8, "flux1": 4}  # noisy pictures at once on a GPU of 24 GiB, at the base's size
DEFAULT_GPU_BATCH: Final = 16
MINIATURE_BATCH: Final = 64
CPU_BATCH: Final = 2


@dataclass(frozen=True, slots=True)
class GrowBase:
    """A base model to grow from.

    Attributes:
        base: its files.
    """

    base: BaseModel

    @classmethod
    def find(cls, name: str) -> "GrowBase":
        """Find a base model by its family, or by its path.

        Raises:
            QueryError: its family is unknown.
            NoBase: it is neither a family of which a base model has been named nor a path.
            FileError: the path is no base model.
        """
        bases, path = Bases.load(), Path(name).expanduser()
        if name not in bases.families and not os.path.exists(path):  # noqa: PTH110 - also False for impossible names
            raise NoBase(
                f"{name}: expected the path of a base model, or a family with a base model here ({', '.join(bases.families)}), "
                "found neither; `loradex grow PATH` takes a folder of diffusers or a checkpoint in one file, "
                "`loradex base add --find` looks for them"
            )
        base = bases.get(name) if name in bases.families else BaseModel.open(path)
        if base.family == UNKNOWN:
            raise QueryError(
                f"{name}: expected a base model of a known family, found an unknown one; see `loradex base add` for those that are known"
            )
        return cls(base)

    @property
    def is_miniature(self) -> bool:
        """Whether it is a base model of the miniature."""
        return self.base.family in SHIPPED

    @property
    def prompt(self) -> str:
        """A prompt that names nothing."""
        return CONSTANT_PROMPT if self.is_miniature else NOTHING

    @property
    def component(self) -> str:
        """What its layers are called by in files."""
        return "transformer" if "transformer" in self.base.parts else "unet"

    def batch(self, device: str) -> int:
        """How many noisy pictures are in memory at once if nothing else is asked for."""
        if self.is_miniature:
            return MINIATURE_BATCH
        return GPU_BATCH.get(self.base.family, DEFAULT_GPU_BATCH) if device.startswith("cuda") else CPU_BATCH

    def threads(self) -> AbstractContextManager[None]:
        """Within, torch computes on as many threads as are good for it."""
        return one_thread() if self.is_miniature else nullcontext()

    def load(self, device: str | None, size: int | None) -> Denoiser:
        """Load it.

        Raises:
            BadBase: it cannot be loaded, or its loss is not known.
            QueryError: it takes no pictures of this size.
        """
        if self.is_miniature:
            from loradex.app.growing.miniature_denoiser import MiniatureDenoiser

            return MiniatureDenoiser(TREES / self.base.family)
        from loradex.app.growing.diffusers_denoiser import DiffusersDenoiser

        return DiffusersDenoiser.load(self.base.path, device, size=size)
