"""Map: the zoo in two dimensions."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import gradio as gr
import numpy as np

from app.desk import Desk
from app.map import Maps
from app.web.cards import QUIET
from app.web.panel import Panel
from app.web.upload import Upload

HERE: Final = Path(__file__).parent

class MapView(gr.HTML):
    """The canvas; its ``map`` is a JSON text, and it fires ``open`` with a model's id."""

    def __init__(self) -> None:
        """Build it, without a map."""
        script = (HERE / "map.js").read_text("utf-8")
        super().__init__("", html_template=(HERE / "map.html").read_text("utf-8"), js_on_load=script, apply_default_css=False, elem_classes="ld-place", map="")
    from collections.abc import Callable, Sequence
    from typing import TYPE_CHECKING, Any, Literal

    from gradio.blocks import Block

    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component

def build(desk: Desk, panel: Panel, tab: gr.Tab, uploads: gr.State) -> None:
    """The tab; the map is computed when it is first looked at."""
    maps = Maps()
    gr.Markdown("Models that draw alike lie near each other. Hover to see what one draws, click to open it; files that you labelled are stars.")
    view = MapView()

    def look(files: list[Upload]) -> gr.HTML:
        return gr.HTML(map=json.dumps(map_document(desk, maps, files)))

    tab.select(look, uploads, view, **QUIET | {"show_progress": "minimal"})
    panel.opens(view)

def map_document(desk: Desk, maps: Maps, files: Sequence[Upload]) -> dict[str, Any]:
    """The map of the zoo that is served, with the files that were sent and have a place in it."""
    zoo_map = maps.of(desk.loradex.zoo)
    sent = [file for file in files if file.vector is not None]
    places = zoo_map.place(np.stack([file.vector for file in sent if file.vector is not None])) if sent else ()
    stars = [{"name": file.name, "x": round(float(x), 4), "y": round(float(y), 4)} for file, (x, y) in zip(sent, places, strict=True)]
    return zoo_map.document() | {"uploads": stars}
