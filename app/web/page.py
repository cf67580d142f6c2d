"""The page: a head, five tabs, a sixth where an expert tells categories, and a panel for one model. Nothing on it comes from another host."""

from typing import Final

import gradio as gr

from loradex.app.backend import Desk
from loradex.app.paths import SHIPPED_ZOO
from loradex.app.web import about_tab, categories_tab, label_tab, library_tab, map_tab, search_tab
from loradex.app.web.cards import QUIET, text
from loradex.app.web.model_panel import Panel
from loradex.app.web.upload_inputs import closed

FILES_LIVE: Final = 900  # seconds


def build_page(desk: Desk) -> gr.Blocks:
    """The Gradio page over a desk."""
    with gr.Blocks(
        title="Loradex", analytics_enabled=False, delete_cache=(FILES_LIVE, FILES_LIVE), fill_width=True
    ) as page:
        head = gr.HTML(head_of(desk))
        panel = Panel(desk)
        with gr.Tabs():
            with gr.Tab("Search", id="search"):
                search_tab.build(desk, panel, page)
            with gr.Tab("Label", id="label"):
                uploads = label_tab.build(desk, panel)
            if desk.loradex.encoder.categories:
                with gr.Tab("Categories", id="categories"):
                    categories_tab.build(desk)
            with gr.Tab("Map", id="map") as tab:
                map_tab.build(desk, panel, tab, uploads)
            with gr.Tab("Library", id="library"):
                library_tab.build(desk, panel, page, lambda: head_of(desk), head)
            with gr.Tab("About", id="about"):
                about_tab.build(desk, page)
        page.load(lambda: head_of(desk), None, head, **QUIET)
    return closed(page)


def head_of(desk: Desk) -> str:
    """The head of the page, with the zoo that is served."""
    zoo = desk.loradex.zoo
    named = "the zoo that ships" if desk.loradex.zoo_folder == SHIPPED_ZOO else text(zoo.folder)
    return (
        '<header class="ld-head"><h1>Lora<b>dex</b></h1><p>Finds fine-tuned image models by what their weights say.</p>'
        f'<p class="ld-zoo">{len(zoo):,} models in {named}</p></header>'
    )
