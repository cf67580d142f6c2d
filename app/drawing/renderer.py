"""Renders pairs of drawings: the base model without a model and with it, with the same options."""

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

from PIL import Image

from loradex.app.drawing.base_models import BaseModel, BaseModels
from loradex.app.drawing.cache import DrawingCache
from loradex.app.drawing.limits import DrawingQueue, StepProgress, StepTracker
from loradex.app.drawing.options import DrawOptions
from loradex.retrieval.lora import LoraFile, WeightsFile

DEFAULT_OPTIONS: Final = DrawOptions()
DEFAULT_TIMEOUT: Final = 600.0  # seconds
CACHE_VERSION: Final = 1  # increase it when the same options are drawn in another way, which invalidates the cache
FULL_MODEL_WARNING: Final = (
    "of a full model, the leading differences to its base are drawn, without those of norms and biases"
)
QUEUE: Final = DrawingQueue()  # of this process


@dataclass(frozen=True, slots=True)
class Drawing:
    """One drawing.

    Attributes:
        path: its file in the cache, which may be deleted at any time.
        cached: whether it was in the cache already.
    """

    path: Path
    image: Image.Image = field(repr=False)
    cached: bool


@dataclass(frozen=True, slots=True)
class DrawingPair:
    """Drawings of a base model without a model and with it.

    Attributes:
        id, family: of the model.
        options: all options that were used.
        warnings: what of the model is not drawn, one line each.
    """

    id: str
    family: str
    options: DrawOptions
    without_model: Drawing
    with_model: Drawing
    warnings: tuple[str, ...]


class Renderer:
    """Draws models, one drawing at a time in a process; drawings in the cache are not drawn again."""

    def __init__(
        self,
        base_models: BaseModels,
        cache: DrawingCache | None = None,
        open_file: Callable[[Path], WeightsFile] = LoraFile.open,
        timeout: float = DEFAULT_TIMEOUT,
        queue: DrawingQueue = QUEUE,
    ) -> None:
        """Create a renderer; ``timeout`` is in seconds for a pair.

        With ``Router.open`` as ``open_file`` it draws full models as well as LoRAs.
        """
        self.base_models, self.cache, self.open_file = base_models, cache or DrawingCache(), open_file
        self.timeout, self.queue = timeout, queue

    def draw(
        self,
        file: Path,
        options: DrawOptions = DEFAULT_OPTIONS,
        *,
        stop: threading.Event | None = None,
        progress: StepProgress = lambda done, total: None,
    ) -> DrawingPair:
        """Draw the model in a file.

        Raises:
            FileError: the file cannot be read, or does not fit the base model.
            NoBase: there is no base model of the file's family.
            DrawingError: it cannot draw, too many wait, or it was stopped or timed out.
            QueryError: the base model does not support an option.
            OSError: the cache cannot be written.
        """
        return self.draw_model(self.open_file(file), options, stop=stop, progress=progress)

    def draw_model(
        self,
        model: WeightsFile,
        options: DrawOptions = DEFAULT_OPTIONS,
        *,
        stop: threading.Event | None = None,
        progress: StepProgress = lambda done, total: None,
    ) -> DrawingPair:
        """Draw an opened model; raises what ``draw`` raises."""
        base = self.base_models.get(model.family)
        options = base.complete_options(options, model)
        base_options, drawn_model = replace(options, strength=0.0), model if options.strength else None
        base_key, model_key = cache_key(base, base_options, None), cache_key(base, options, drawn_model)
        jobs = {base_key: (base_options, None), model_key: (options, drawn_model)}  # one job if the strength is zero
        drawings = {
            key: Drawing(self.cache.path(key), image, cached=True)
            for key in jobs
            if (image := self.cache.get(key)) is not None
        }
        missing = {key: job for key, job in jobs.items() if key not in drawings}
        if missing:
            drawings |= self.draw_jobs(base, missing, stop or threading.Event(), progress)
        warnings = tuple(model.problems) if isinstance(model, LoraFile) else (FULL_MODEL_WARNING,)
        return DrawingPair(model.id, model.family, options, drawings[base_key], drawings[model_key], warnings)

    def draw_jobs(
        self,
        base: BaseModel,
        jobs: dict[str, tuple[DrawOptions, WeightsFile | None]],
        stop: threading.Event,
        progress: StepProgress,
    ) -> dict[str, Drawing]:
        """Draw jobs, by cache key, and store them in the cache.

        A drawing that another caller made while this one waited is taken from the cache.
        """
        drawings: dict[str, Drawing] = {}
        with self.queue.turn(stop):
            tracker = StepTracker(sum(options.steps or 0 for options, _ in jobs.values()), self.timeout, stop, progress)
            for key, (options, model) in jobs.items():
                tracker.check()
                cached = self.cache.get(key)
                image = cached or self.base_models.load(base).draw(options, model, tracker.step)
                if cached is None:
                    self.cache.put(key, image)
                drawings[key] = Drawing(self.cache.path(key), image, cached=cached is not None)
        return drawings


def cache_key(base: BaseModel, options: DrawOptions, model: WeightsFile | None) -> str:
    """Hash everything that a drawing depends on."""
    parts = [CACHE_VERSION, base.family, base.signature, asdict(options), model.id if model else None]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]
