"""The base models that are at hand, by family."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from loradex.app.drawing.errors import NoBase
from loradex.app.drawing.loaded_models import Artist, DiffusersArtist, MiniatureArtist
from loradex.app.drawing.options import LONGEST_PROMPT, Wish
from loradex.app.miniature.pipeline import CONSTANT_PROMPT
from loradex.app.paths import TREES, UPSAMPLER
from loradex.retrieval.errors import QueryError
from loradex.retrieval.lora import WeightsFile

BASES: Final = "LORADEX_BASES"  # the environment's FAMILY=FOLDER pairs, with os.pathsep between them
ICON: Final = Wish(
    CONSTANT_PROMPT, steps=16, guidance=2.0
)  # the mini-CLIP names 48 to 55 % of validation LoRAs' drawings so, 14 to 33 % without guidance
PICTURE: Final = Wish("a picture", steps=20)


@dataclass(frozen=True)
class Base:
    """A base model that may be loaded.

    Attributes:
        folders: where it lies.
        usual: how it draws where nothing else is wished.
        load: brings it into memory.
        resizes: whether a size may be wished.
    """

    family: str
    folders: tuple[Path, ...]
    usual: Wish
    load: Callable[[], Artist]
    resizes: bool

    @classmethod
    def of_miniature(cls, tree: str) -> "Base":
        """One of those that ship."""
        return cls(tree, (TREES / tree, UPSAMPLER), ICON, lambda: MiniatureArtist(TREES / tree), resizes=False)

    @classmethod
    def of_folder(cls, family: str, folder: Path) -> "Base":
        """One that diffusers saved into a folder."""
        return cls(family, (folder,), PICTURE, lambda: DiffusersArtist(folder), resizes=True)

    @cached_property
    def signature(self) -> str:
        """A name made of its files' places, sizes and times."""
        digest = hashlib.sha256()
        for path in sorted(
            path for folder in self.folders for depth in ("*", "*/*") for path in folder.glob(depth) if path.is_file()
        ):
            about = path.stat()
            digest.update(f"{path.absolute()} {about.st_size} {about.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()[:20]

    def completed(self, wish: Wish, model: WeightsFile) -> Wish:
        """A wish with what it leaves out; the prompt is the model's trigger words, if it has any.

        Raises:
            QueryError: a size is wished of a base model that has but one.
        """
        if wish.size is not None and not self.resizes:
            raise QueryError(
                f"size: expected none, as {self.family} draws in one size, found {wish.size}; leave it out"
            )
        prompt = wish.prompt or ", ".join(model.facts.trigger_words)[:LONGEST_PROMPT] or self.usual.prompt
        guidance = self.usual.guidance if wish.guidance is None else wish.guidance
        return replace(wish, prompt=prompt, steps=wish.steps or self.usual.steps, guidance=guidance)


class Bases:
    """Base models by family, the miniature's two among them; one at a time is in memory."""

    def __init__(self, *named: Base) -> None:
        """The miniature's, and named ones."""
        self.by_family = {
            base.family: base for base in (Base.of_miniature("mini-a"), Base.of_miniature("mini-b"), *named)
        }
        self._loaded: tuple[str, Artist] | None = None

    @classmethod
    def of(cls, written: Sequence[str] = ()) -> "Bases":
        """Those of ``$LORADEX_BASES``, and others written as FAMILY=FOLDER, which come before.

        Raises:
            QueryError: one is written in another way.
        """
        said = [pair for pair in os.environ.get(BASES, "").split(os.pathsep) if pair.strip()]
        return cls(*(Base.of_folder(*pair_of(pair)) for pair in (*said, *written)))

    def of_family(self, family: str) -> Base:
        """The base model of a family.

        Raises:
            NoBase: there is none.
        """
        if family not in self.by_family:
            at_hand = ", ".join(self.by_family)
            how = f"name its base model, a folder of diffusers, with --base {family}=FOLDER or in ${BASES}"
            raise NoBase(f"base model: expected one of family {family}, found those of {at_hand}; {how}")
        return self.by_family[family]

    def artist(self, base: Base) -> Artist:
        """The base model in memory, in the place of another one; for one thread at a time.

        Raises:
            BadBase: it cannot be loaded.
        """
        if self._loaded is None or self._loaded[0] != base.family:
            self._loaded = None  # so that two are never in memory
            self._loaded = base.family, base.load()
        return self._loaded[1]


def pair_of(written: str) -> tuple[str, Path]:
    """A family and a folder.

    Raises:
        QueryError: it is not written as FAMILY=FOLDER.
    """
    family, _, folder = (part.strip() for part in written.partition("="))
    if not family or not folder:
        raise QueryError(
            f"base model: expected FAMILY=FOLDER, such as sdxl=models/sdxl, found {written[:80]!r}; write it so"
        )
    return family, Path(folder).expanduser()
