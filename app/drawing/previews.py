"""Drawings for the models of a zoo that have none."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from loradex.app.drawing.errors import Stopped
from loradex.app.drawing.renderer import Studio
from loradex.app.models import path_of
from loradex.app.previews import store_preview
from loradex.index import AnyZoo, Filter, Model, ModelMissing
from loradex.retrieval.errors import FileMissing, LoradexError


@dataclass(frozen=True, slots=True)
class Outcome:
    """A model that has a drawing now, or the reason why it has none."""

    model: Model
    reason: str | None = None


def undrawn(zoo: AnyZoo, studio: Studio) -> list[Model]:
    """The models without a preview of which the base model is at hand."""
    return [model for model in zoo.models(Filter(tuple(studio.bases.by_family))) if model.preview is None]


def draw_missing(
    zoo: AnyZoo, studio: Studio, models: list[Model], stop: threading.Event | None = None
) -> Iterator[Outcome]:
    """Draw some models of a zoo that is open for writing, one after another, until ``stop`` is set; one that cannot be drawn never stops the others.

    Raises:
        ZooError: the zoo cannot be written.
        OSError: the disk refuses a drawing.
    """
    stop = stop or threading.Event()
    for model in models:
        try:
            draw_preview(zoo, studio, model, stop)
        except Stopped:
            return
        except (LoradexError, ModelMissing) as error:
            yield Outcome(model, str(error))
        else:
            yield Outcome(model)


def draw_preview(zoo: AnyZoo, studio: Studio, model: Model, stop: threading.Event) -> None:
    """Draw a model and keep that as its preview.

    Raises:
        FileMissing: its file is not on this machine, or is another one by now.
        ModelMissing: it is no longer in the zoo.
    """
    path = path_of(model, str(zoo.folder))
    if path is None or "://" in path:
        raise FileMissing(
            f"{path or model.name}: expected a file on this machine, found none; fetch it, and index it from a folder"
        )
    opened = studio.open_file(Path(path))
    if opened.id != model.id:
        raise FileMissing(f"{path}: expected model {model.id}, found {opened.id}; index it again")
    drawn = studio.draw_model(opened, stop=stop).drawn.picture
    model = replace(zoo.get(model.id), preview=store_preview(drawn, model.id, zoo.folder))
    zoo.add([model], [zoo.vectors_of([model.id]).get(model.id)])
