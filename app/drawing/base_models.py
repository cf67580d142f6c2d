"""The available base models, by family."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from loradex.app.drawing.errors import NoBase
from loradex.app.drawing.loaded_models import DiffusersBaseModel, LoadedBaseModel, MiniatureBaseModel
from loradex.app.drawing.options import MAX_PROMPT_LENGTH, DrawOptions
from loradex.app.miniature.pipeline import CONSTANT_PROMPT
from loradex.app.paths import TREES, UPSAMPLER
from loradex.retrieval.errors import QueryError
from loradex.retrieval.lora import WeightsFile

BASES_VARIABLE: Final = "LORADEX_BASES"  # environment variable: FAMILY=FOLDER pairs, separated by os.pathsep
# With this guidance the mini-CLIP names 48 to 55 % of the drawings of validation LoRAs rightly, without it 14 to 33 %.
MINIATURE_DEFAULTS: Final = DrawOptions(CONSTANT_PROMPT, steps=16, guidance=2.0)
DIFFUSERS_DEFAULTS: Final = DrawOptions("a picture", steps=20)


@dataclass(frozen=True)
class BaseModel:
    """A base model that can be loaded.

    Attributes:
        folders: the folders of its files.
        defaults: values for options that are not given.
        load: loads it into memory.
        resizable: whether it draws in more than one size.
    """

    family: str
    folders: tuple[Path, ...]
    defaults: DrawOptions
    load: Callable[[], LoadedBaseModel]
    resizable: bool

    @classmethod
    def from_miniature(cls, tree: str) -> "BaseModel":
        """Return the base model of a model tree of the miniature."""
        folders = (TREES / tree, UPSAMPLER)
        return cls(tree, folders, MINIATURE_DEFAULTS, lambda: MiniatureBaseModel(TREES / tree), resizable=False)

    @classmethod
    def from_folder(cls, family: str, folder: Path) -> "BaseModel":
        """Return a base model saved by diffusers."""
        return cls(family, (folder,), DIFFUSERS_DEFAULTS, lambda: DiffusersBaseModel(folder), resizable=True)

    @cached_property
    def signature(self) -> str:
        """Hash of the paths, sizes and modification times of its files: changes whenever the base model does."""
        digest = hashlib.sha256()
        for path in sorted(
            path for folder in self.folders for depth in ("*", "*/*") for path in folder.glob(depth) if path.is_file()
        ):
            stat = path.stat()
            digest.update(f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()[:20]

    def complete_options(self, options: DrawOptions, model: WeightsFile) -> DrawOptions:
        """Fill in the options that are not given; the default prompt is the model's trigger words, if it has any.

        Raises:
            QueryError: a size is given, and the base model draws in one size only.
        """
        if options.size is not None and not self.resizable:
            raise QueryError(
                f"size: expected none, as {self.family} draws in one size, found {options.size}; leave it out"
            )
        prompt = options.prompt or ", ".join(model.facts.trigger_words)[:MAX_PROMPT_LENGTH] or self.defaults.prompt
        guidance = self.defaults.guidance if options.guidance is None else options.guidance
        return replace(options, prompt=prompt, steps=options.steps or self.defaults.steps, guidance=guidance)


class BaseModels:
    """Base models by family: the miniature's two, and further ones. Only one at a time is in memory."""

    def __init__(self, *further: BaseModel) -> None:
        """Add ``further`` base models to the miniature's; of several for one family, the last is used."""
        self.by_family = {
            base.family: base
            for base in (BaseModel.from_miniature("mini-a"), BaseModel.from_miniature("mini-b"), *further)
        }
        self._loaded: tuple[str, LoadedBaseModel] | None = None

    @classmethod
    def from_pairs(cls, pairs: Sequence[str] = ()) -> "BaseModels":
        """Create from FAMILY=FOLDER pairs: those of ``$LORADEX_BASES``, and ``pairs``, which override them.

        Raises:
            QueryError: a pair cannot be parsed.
        """
        configured = [pair for pair in os.environ.get(BASES_VARIABLE, "").split(os.pathsep) if pair.strip()]
        return cls(*(BaseModel.from_folder(*parse_pair(pair)) for pair in (*configured, *pairs)))

    def get(self, family: str) -> BaseModel:
        """Return the base model of a family.

        Raises:
            NoBase: there is none.
        """
        if family not in self.by_family:
            available = ", ".join(self.by_family)
            how = f"name its base model, a folder of diffusers, with --base {family}=FOLDER or in ${BASES_VARIABLE}"
            raise NoBase(f"base model: expected one of family {family}, found those of {available}; {how}")
        return self.by_family[family]

    def load(self, base: BaseModel) -> LoadedBaseModel:
        """Return a base model in memory, loading it in place of the one before; for one thread at a time.

        Raises:
            BadBase: it cannot be loaded.
        """
        if self._loaded is None or self._loaded[0] != base.family:
            self._loaded = None  # frees the memory first
            self._loaded = base.family, base.load()
        return self._loaded[1]


def parse_pair(pair: str) -> tuple[str, Path]:
    """Parse FAMILY=FOLDER.

    Raises:
        QueryError: it has another form.
    """
    family, _, folder = (part.strip() for part in pair.partition("="))
    if not family or not folder:
        raise QueryError(
            f"base model: expected FAMILY=FOLDER, such as sdxl=models/sdxl, found {pair[:80]!r}; write it so"
        )
    return family, Path(folder).expanduser()
