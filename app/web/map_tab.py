"""The Map tab: the zoo in two dimensions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import gradio as gr
import numpy as np

from loradex.app.backend import Backend
from loradex.app.search.zoo_map import MapCache
from loradex.app.web.elements import EVENT_OPTIONS
from loradex.app.web.labelled_file import LabelledFile
from loradex.app.web.model_panel import ModelPanel

HERE: Final = Path(__file__).parent


def build(backend: Backend, panel: ModelPanel, tab: gr.Tab, labelled_files: gr.State) -> None:
    """Build the tab; the map is computed when the tab is first opened."""
    maps = MapCache()
    gr.Markdown(
        "Models that draw similar things are close together. Hover over a model to see its preview, click to open it. Stars are the files from the Label tab."
    )
    view = map_component()

    def update(files: list[LabelledFile]) -> gr.HTML:
        return gr.HTML(map=json.dumps(map_document(backend, maps, files)))

    tab.select(update, labelled_files, view, **EVENT_OPTIONS | {"show_progress": "minimal"})
    panel.open_models_of(view)


def map_component() -> gr.HTML:
    """The map's canvas; its property ``map`` is a JSON document, and it triggers ``open`` with a model's id."""
    template, script = ((HERE / name).read_text("utf-8") for name in ("map.html", "map.js"))
    return gr.HTML(
        "", html_template=template, js_on_load=script, apply_default_css=False, elem_classes="ld-place", map=""
    )


def map_document(backend: Backend, maps: MapCache, files: Sequence[LabelledFile]) -> dict[str, Any]:
    """The map of the served zoo, with those labelled files that have a vector."""
    zoo_map = maps.get(backend.loradex.zoo)
    placed = [file for file in files if file.vector is not None]
    positions = zoo_map.project(np.stack([file.vector for file in placed if file.vector is not None])) if placed else ()
    stars = [
        {"name": file.name, "x": round(float(x), 4), "y": round(float(y), 4)}
        for file, (x, y) in zip(placed, positions, strict=True)
    ]
    return zoo_map.document() | {"uploads": stars}
