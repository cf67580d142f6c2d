"""The available base models, by family."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from loradex.app.bases.bases import Bases, named_bases, no_base
from loradex.app.bases.entry import Entry
from loradex.app.bases.shipped import SHIPPED
from loradex.app.drawing.errors import NoBase
from loradex.app.drawing.loaded_models import DiffusersBaseModel, LoadedBaseModel, MiniatureBaseModel
from loradex.app.drawing.one_file import RECIPES, one_file
from loradex.app.drawing.options import MAX_PROMPT_LENGTH, DrawOptions
from loradex.app.miniature.pipeline import CONSTANT_PROMPT
from loradex.app.paths import TREES, UPSAMPLER
from loradex.retrieval.errors import QueryError
from loradex.retrieval.lora import WeightsFile

# With this guidance the mini-CLIP names 48 to 55 % of the drawings of validation LoRAs rightly, without it 14 to 33 %.
MINIATURE_DEFAULTS: Final = DrawOptions(CONSTANT_PROMPT, steps=16, guidance=2.0)
DIFFUSERS_DEFAULTS: Final = DrawOptions("a picture", steps=20)


@dataclass(frozen=True)
class BaseModel:
    """A base model that can be loaded.

    Attributes:
        paths: the folders of its files, or its one file.
        defaults: values for options that are not given.
        load: loads it into memory.
        resizable: whether it draws in more than one size.
    """

    family: str
    paths: tuple[Path, ...]
    defaults: DrawOptions
    load: Callable[[], LoadedBaseModel]
    resizable: bool

    @classmethod
    def from_miniature(cls, tree: str) -> "BaseModel":
        """Return the base model of a model tree of the miniature."""
        paths = (TREES / tree, UPSAMPLER)
        return cls(tree, paths, MINIATURE_DEFAULTS, lambda: MiniatureBaseModel(TREES / tree), resizable=False)

    @classmethod
    def from_path(cls, family: str, path: Path) -> "BaseModel":
        """Return a base model in a folder of diffusers, or in one file."""
        return cls(family, (path,), DIFFUSERS_DEFAULTS, lambda: DiffusersBaseModel(path), resizable=True)

    @cached_property
    def signature(self) -> str:
        """Hash of the paths, sizes and modification times of its files: changes whenever the base model does."""
        digest = hashlib.sha256()
        found = (file for path in self.paths for file in (path, *path.glob("*"), *path.glob("*/*")))
        for path in sorted(file for file in found if file.is_file()):
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
    """Base models by family: given ones, then those that were added, then the miniature's; one is in memory."""

    def __init__(self, *given: BaseModel) -> None:
        """Let ``given`` base models go before the others; of several for one family, the last is used."""
        self.given = {base.family: base for base in given}
        self.shipped = {tree: BaseModel.from_miniature(tree) for tree in SHIPPED}
        self._loaded: tuple[tuple[Path, ...], LoadedBaseModel] | None = None

    @classmethod
    def from_pairs(cls, pairs: Sequence[str] = ()) -> "BaseModels":
        """Create from FAMILY=PATH pairs: those of ``$LORADEX_BASES``, and ``pairs``, which override them.

        Raises:
            QueryError: a pair cannot be parsed.
        """
        return cls(*(BaseModel.from_path(family, path) for family, path in named_bases(pairs).items()))

    @property
    def by_family(self) -> dict[str, BaseModel]:
        """All that can draw, with those that were added by now.

        Raises:
            RegistryError: the list of base models that were added is damaged.
        """
        added = {
            family: BaseModel.from_path(family, Path(entry.path))
            for family, entry in Bases.load().defaults.items()
            if entry.kind == "folder" or family in RECIPES
        }
        return self.shipped | added | self.given

    def get(self, family: str) -> BaseModel:
        """Return the base model of a family.

        Raises:
            NoBase: there is none, or the one that was added cannot draw, has moved or has changed.
            RegistryError: the list of base models that were added is damaged.
        """
        if family in self.given:
            return self.given[family]
        entry = Bases.load().defaults.get(family)
        if entry is not None:
            return drawing_base(entry)
        if family not in self.shipped:
            raise no_base(family, self.by_family)
        return self.shipped[family]

    def load(self, base: BaseModel) -> LoadedBaseModel:
        """Return a base model in memory, loading it in place of the one before; for one thread at a time.

        Raises:
            BadBase: it cannot be loaded.
        """
        if self._loaded is None or self._loaded[0] != base.paths:
            self._loaded = None  # frees the memory first
            self._loaded = base.paths, base.load()
        return self._loaded[1]


def drawing_base(entry: Entry) -> BaseModel:
    """The base model that draws, of one that was added.

    Raises:
        NoBase: it cannot draw, has moved or has changed.
    """
    base = entry.open()
    if entry.kind != "folder" and entry.family not in RECIPES:
        raise NoBase(f"base model of {entry.family}: {one_file(entry.path, entry.family)}")
    if base.parts.keys().isdisjoint(("unet", "transformer")):
        raise NoBase(
            f"base model of {entry.family}: {entry.path}: expected a U-Net or a transformer as safetensors to draw with, "
            f"found {', '.join(base.parts)} alone; download the whole model, or `loradex base add` another"
        )
    return BaseModel.from_path(entry.family, Path(entry.path))
