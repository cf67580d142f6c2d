"""The panel at the right of every tab: details of one model, and controls that draw with it."""

from pathlib import Path
from typing import Final

import gradio as gr

from loradex.app.backend import Backend
from loradex.app.models import model_path, stored_words
from loradex.app.web.cards import preview, stored_labels
from loradex.app.web.drawing_controls import DrawingControls
from loradex.app.web.elements import (
    EVENT_OPTIONS,
    action_button,
    copy_button,
    escape_text,
    facts_table,
    html_view,
    label_bars,
    notice,
    table,
    warning,
)
from loradex.app.web.labelled_file import LabelledFile
from loradex.app.web.model_selection import event_id
from loradex.index import Evidence
from loradex.index.errors import ZooError

SHOWN_FACTS: Final = (
    "format",
    "ranks",
    "layers",
    "title",
    "base_model",
    "trainer",
    "trigger_words",
    "tags",
    "notes",
)
MAX_PATHS: Final = 10
EVIDENCE: Final = {
    Evidence.PICTURE: "what it draws, read from its weights by an expert",
    Evidence.WORDS: "words of its training captions, read from its weights",
    Evidence.PREVIEW: "the preview pictures beside its file",
    Evidence.METADATA: "its name, tags and notes only: nothing was read from its weights, and it has no preview",
}


class ModelPanel:
    """The panel, closed until a model is opened."""

    def __init__(self, backend: Backend) -> None:
        """Build the panel."""
        self.backend = backend
        with gr.Sidebar(position="right", open=False, width=400, elem_id="ld-panel") as self.sidebar:
            self.view = html_view(notice("Open a model to see its details here."))
            self.subject = gr.State("")  # what to draw with: a model's id, or the path of an uploaded file
            self.drawing_controls = DrawingControls(backend, self.subject)
        self.outputs = [self.sidebar, self.view, self.subject, self.drawing_controls.view]

    def open_models_of(self, view: gr.HTML) -> None:
        """Open a model of the zoo when it is clicked in a view."""
        view.open(self.show_model, None, self.outputs, **EVENT_OPTIONS)

    def draw_files_of(self, view: gr.HTML, files: gr.State) -> None:
        """Open a labelled file when its draw button in a view is clicked."""
        view.draw(self.show_file, files, self.outputs, **EVENT_OPTIONS)

    def show_model(self, event: gr.EventData) -> tuple[gr.Sidebar, str, str, str]:
        """Show the model that was clicked."""
        return gr.Sidebar(open=True), render_model(self.backend, event_id(event)), event_id(event), ""

    def show_file(self, files: list[LabelledFile], event: gr.EventData) -> tuple[gr.Sidebar, str, Path | str, str]:
        """Show the labelled file whose number was clicked."""
        number = int(event_id(event)) if event_id(event).isdecimal() else len(files)
        if number >= len(files):
            message = warning("file: expected one that was just labelled, found none; upload it again")
            return gr.Sidebar(open=True), message, "", ""
        file = files[number]
        heading = f"<h2>{escape_text(file.name)}</h2>{notice('Choose the options below, then click Draw.')}"
        return gr.Sidebar(open=True), heading, Path(file.path), ""


def render_model(backend: Backend, id: str) -> str:
    """Everything that the zoo holds of a model."""
    loradex = backend.loradex
    try:
        model = loradex.zoo.get(id)
        files = loradex.zoo.files_by_model([id]).get(id, [])
    except ZooError as error:
        return warning(str(error))
    labels, words = stored_labels(model), stored_words(model)
    rows = [
        ("family", escape_text(model.family)),
        ("made for", escape_text(model.concept) if model.concept else ""),
        ("known by", "<br>".join(EVIDENCE[kind] for kind in model.evidence or (Evidence.METADATA,))),
        ("id", escape_text(model.id)),
    ]
    facts = facts_table({name: model.facts.get(name) for name in SHOWN_FACTS})
    paths = [file.path for file in files] or [path for path in (model_path(model, str(loradex.zoo_folder)),) if path]
    path_lines = "".join(
        f"<p class='ld-why'>{escape_text(path, 400)} {copy_button(path, 'copy')}</p>" for path in paths[:MAX_PATHS]
    )
    buttons = action_button("like", id, "More like this", "more like this") + action_button(
        "compare", id, "Compare side by side", "compare"
    )
    return (
        f'<div class="ld-drawing">{preview(model, loradex.zoo_folder)}</div><h2>{escape_text(model.name)}</h2>'
        f'<div class="ld-acts">{buttons}</div>'
        + (f"<h4>Labels predicted from its weights</h4>{label_bars(labels)}" if labels else "")
        + (f"<h4>Trained with, as its weights say</h4>{label_bars(words)}" if words else "")
        + f"<h4>Facts</h4>{table(rows)}{facts}<h4>Files</h4>{path_lines}"
    )
