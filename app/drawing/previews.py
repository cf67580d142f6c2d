"""Draws previews for the models of a zoo that have none."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from loradex.app.drawing.errors import Stopped
from loradex.app.drawing.renderer import Renderer
from loradex.app.models import model_path
from loradex.app.previews import replace_preview
from loradex.index import AnyZoo, Filter, Model, ModelMissing
from loradex.retrieval.errors import FileMissing, LoradexError


@dataclass(frozen=True, slots=True)
class PreviewResult:
    """Result of drawing one preview; ``reason`` says why it failed, if it did."""

    model: Model
    reason: str | None = None


def models_without_preview(zoo: AnyZoo, renderer: Renderer) -> list[Model]:
    """Return the models that have no preview and whose base model is available."""
    return [model for model in zoo.models(Filter(tuple(renderer.base_models.by_family))) if model.preview is None]


def draw_previews(
    zoo: AnyZoo, renderer: Renderer, models: list[Model], stop: threading.Event | None = None
) -> Iterator[PreviewResult]:
    """Draw previews one after another until ``stop`` is set; a model that cannot be drawn does not stop the others.

    The zoo must be open for writing.

    Raises:
        ZooError: the zoo cannot be written.
        OSError: the preview cannot be written.
    """
    stop = stop or threading.Event()
    for model in models:
        try:
            draw_preview(zoo, renderer, model, stop)
        except Stopped:
            return
        except (LoradexError, ModelMissing) as error:
            yield PreviewResult(model, str(error))
        else:
            yield PreviewResult(model)


def draw_preview(zoo: AnyZoo, renderer: Renderer, model: Model, stop: threading.Event) -> None:
    """Draw a model and store the drawing as its preview.

    Raises:
        FileMissing: its file is not on this machine, or holds another model by now.
        ModelMissing: it is no longer in the zoo.
    """
    path = model_path(model, str(zoo.folder))
    if path is None or "://" in path:
        raise FileMissing(
            f"{path or model.name}: expected a file on this machine, found none; fetch it, and index it from a folder"
        )
    weights = renderer.open_file(Path(path))
    if weights.id != model.id:
        raise FileMissing(f"{path}: expected model {model.id}, found {weights.id}; index it again")
    image = renderer.draw_model(weights, stop=stop).with_model.image
    model = replace(zoo.get(model.id), preview=replace_preview(image, model.id, zoo.folder))
    zoo.add([model], [zoo.positions_by_id([model.id]).get(model.id)])
