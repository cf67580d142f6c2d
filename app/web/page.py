"""The page: header, tabs, and a panel for one model. It loads nothing from other hosts."""

from typing import Final

import gradio as gr

from loradex.app.backend import Backend
from loradex.app.paths import SHIPPED_ZOO
from loradex.app.web import about_tab, categories_tab, label_tab, library_tab, map_tab, search_tab
from loradex.app.web.elements import EVENT_OPTIONS, escape_text
from loradex.app.web.model_panel import ModelPanel
from loradex.app.web.upload_inputs import accept_uploads_only

UPLOAD_LIFETIME: Final = 900  # seconds


def build_page(backend: Backend) -> gr.Blocks:
    """Build the Gradio page over a backend; the Categories tab is there if an expert for classifiers is loaded."""
    with gr.Blocks(
        title="Loradex", analytics_enabled=False, delete_cache=(UPLOAD_LIFETIME, UPLOAD_LIFETIME), fill_width=True
    ) as page:
        header = gr.HTML(page_header(backend))
        panel = ModelPanel(backend)
        with gr.Tabs():
            with gr.Tab("Search", id="search"):
                search_tab.build(backend, panel, page)
            with gr.Tab("Label", id="label"):
                labelled_files = label_tab.build(backend, panel)
            if backend.loradex.encoder.categories:
                with gr.Tab("Categories", id="categories"):
                    categories_tab.build(backend)
            with gr.Tab("Map", id="map") as tab:
                map_tab.build(backend, panel, tab, labelled_files)
            with gr.Tab("Library", id="library"):
                library_tab.build(backend, panel, page, lambda: page_header(backend), header)
            with gr.Tab("About", id="about"):
                about_tab.build(backend, page)
        page.load(lambda: page_header(backend), None, header, **EVENT_OPTIONS)
    return accept_uploads_only(page)


def page_header(backend: Backend) -> str:
    """Title, and the size and place of the zoo that is served."""
    zoo = backend.loradex.zoo
    shipped = backend.loradex.zoo_folder == SHIPPED_ZOO
    place = "the miniature, the example zoo that ships" if shipped else f"the zoo {escape_text(zoo.folder)}"
    return (
        '<header class="ld-head"><h1>Lora<b>dex</b></h1>'
        "<p>Finds fine-tuned image models (LoRAs) by what their weights say.</p>"
        f'<p class="ld-zoo">{len(zoo):,} models in {place}</p></header>'
    )
