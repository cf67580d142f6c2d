"""Drawings of models, each beside what its base model draws of the same wish without it."""

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from PIL import Image

from loradex.app.drawing.base_models import Base, Bases
from loradex.app.drawing.cache import Drawings
from loradex.app.drawing.limits import Pace, Progress, Turns
from loradex.app.drawing.options import Wish
from loradex.retrieval.lora import LoraFile, WeightsFile

USUAL: Final = Wish()
LIMIT: Final = 600.0  # seconds
RECIPE: Final = (
    1  # counts up whenever the same wish is drawn in another way, so that no old drawing is taken for a new one
)
WHOLE: Final = "of a whole model, the leading differences to its base are drawn, without those of norms and biases"
TURNS: Final = Turns()


@dataclass(frozen=True, slots=True)
class Drawing:
    """One picture; the file is in the cache, from which it may go at any time."""

    path: Path
    picture: Image.Image = field(repr=False)
    cached: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """What the base model draws without a model and with it, of one wish that leaves nothing out.

    Attributes:
        id, family: of the model.
        doubts: what of the model is not drawn, a line each.
    """

    id: str
    family: str
    wish: Wish
    without: Drawing
    drawn: Drawing
    doubts: tuple[str, ...]


class Studio:
    """Draws, one drawing at a time in a process, what is not in the cache."""

    def __init__(
        self,
        bases: Bases,
        cache: Drawings | None = None,
        open_file: Callable[[Path], WeightsFile] = LoraFile.open,
        limit: float = LIMIT,
        turns: Turns = TURNS,
    ) -> None:
        """Draw with these bases; ``open_file`` may be a router's, so that whole models are read as well; ``limit`` is in seconds a pair."""
        self.bases, self.cache, self.open_file, self.limit, self.turns = (
            bases,
            cache or Drawings(),
            open_file,
            limit,
            turns,
        )

    def draw(
        self,
        file: Path,
        wish: Wish = USUAL,
        *,
        stop: threading.Event | None = None,
        progress: Progress = lambda done, total: None,
    ) -> Pair:
        """Draw a file's model.

        Raises:
            FileError: the file cannot be read, or does not fit the base model.
            DrawingError: there is no base model, it cannot draw, too many wait, or the drawing was stopped or took too long.
            QueryError: the base model cannot do what is wished.
            OSError: the cache cannot be written.
        """
        return self.draw_model(self.open_file(file), wish, stop=stop, progress=progress)

    def draw_model(
        self,
        model: WeightsFile,
        wish: Wish = USUAL,
        *,
        stop: threading.Event | None = None,
        progress: Progress = lambda done, total: None,
    ) -> Pair:
        """Draw a model that was opened; it raises what ``draw`` does."""
        base = self.bases.of_family(model.family)
        wish = base.completed(wish, model)
        plain, subject = replace(wish, strength=0.0), model if wish.strength else None
        keys = [key_of(base, plain, None), key_of(base, wish, subject)]
        jobs = dict(zip(keys, [(plain, None), (wish, subject)], strict=True))
        found = {
            key: Drawing(self.cache.path(key), picture, cached=True)
            for key in jobs
            if (picture := self.cache.find(key)) is not None
        }
        missing = {key: job for key, job in jobs.items() if key not in found}
        if missing:
            found |= self.draw_all(base, missing, stop or threading.Event(), progress)
        doubts = tuple(model.problems) if isinstance(model, LoraFile) else (WHOLE,)
        return Pair(model.id, model.family, wish, found[keys[0]], found[keys[1]], doubts)

    def draw_all(
        self, base: Base, jobs: dict[str, tuple[Wish, WeightsFile | None]], stop: threading.Event, progress: Progress
    ) -> dict[str, Drawing]:
        """Draw and keep what others have not drawn while this waited."""
        made: dict[str, Drawing] = {}
        with self.turns.turn(stop):
            pace = Pace(sum(wish.steps or 0 for wish, _ in jobs.values()), self.limit, stop, progress)
            for key, (wish, model) in jobs.items():
                pace.check()
                known = self.cache.find(key)
                picture = known or self.bases.artist(base).draw(wish, model, pace.step)
                if known is None:
                    self.cache.keep(key, picture)
                made[key] = Drawing(self.cache.path(key), picture, cached=known is not None)
        return made


def key_of(base: Base, wish: Wish, model: WeightsFile | None) -> str:
    """A name made of all that a drawing depends on."""
    depends = [RECIPE, base.family, base.signature, asdict(wish), model.id if model else None]
    return hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:40]
