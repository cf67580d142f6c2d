"""Map: the zoo in two dimensions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import gradio as gr
import numpy as np

from loradex.app.backend import Desk
from loradex.app.search.zoo_map import Maps
from loradex.app.web.cards import QUIET
from loradex.app.web.labelled_file import Upload
from loradex.app.web.model_panel import Panel

HERE: Final = Path(__file__).parent


def map_view() -> gr.HTML:
    """The canvas; its ``map`` is a JSON text, and it fires ``open`` with a model's id."""
    template, script = ((HERE / name).read_text("utf-8") for name in ("map.html", "map.js"))
    return gr.HTML(
        "", html_template=template, js_on_load=script, apply_default_css=False, elem_classes="ld-place", map=""
    )


def build(desk: Desk, panel: Panel, tab: gr.Tab, uploads: gr.State) -> None:
    """The tab; the map is computed when it is first looked at."""
    maps = Maps()
    gr.Markdown(
        "Models that draw alike lie near each other. Hover to see what one draws, click to open it; files that you labelled are stars."
    )
    view = map_view()

    def look(files: list[Upload]) -> gr.HTML:
        return gr.HTML(map=json.dumps(map_document(desk, maps, files)))

    tab.select(look, uploads, view, **QUIET | {"show_progress": "minimal"})
    panel.opens(view)


def map_document(desk: Desk, maps: Maps, files: Sequence[Upload]) -> dict[str, Any]:
    """The map of the zoo that is served, with the files that were sent and have a place in it."""
    zoo_map = maps.of(desk.loradex.zoo)
    sent = [file for file in files if file.vector is not None]
    places = zoo_map.place(np.stack([file.vector for file in sent if file.vector is not None])) if sent else ()
    stars = [
        {"name": file.name, "x": round(float(x), 4), "y": round(float(y), 4)}
        for file, (x, y) in zip(sent, places, strict=True)
    ]
    return zoo_map.document() | {"uploads": stars}
