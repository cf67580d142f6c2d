"""All that is known of one model, at the side of every tab."""

from pathlib import Path

import gradio as gr

from loradex.app.backend import Desk
from loradex.app.models import path_of
from loradex.app.web.cards import (
    QUIET,
    act,
    copy_button,
    drawing,
    facts_table,
    html,
    label_bars,
    labels_of,
    notice,
    table,
    text,
)
from loradex.app.web.drawing_controls import DrawBox
from loradex.app.web.labelled_file import Upload
from loradex.app.web.model_selection import id_of
from loradex.index.errors import ZooError

SHOWN = ("format", "ranks", "layers", "title", "base_model", "trainer", "trigger_words", "tags", "notes")


class Panel:
    """The panel, closed until a model is opened."""

    def __init__(self, desk: Desk) -> None:
        """Build it where it stands."""
        self.desk = desk
        with gr.Sidebar(position="right", open=False, width=400, elem_id="ld-panel") as self.side:
            self.view = html(notice("Open a model to see what is known of it."))
            self.subject = gr.State("")
            self.draw_box = DrawBox(desk, self.subject)
        self.shown = [self.side, self.view, self.subject, self.draw_box.place]

    def opens(self, place: gr.HTML) -> None:
        """Have a place's models open here."""
        place.open(self.show, None, self.shown, **QUIET)

    def draws(self, place: gr.HTML, uploads: gr.State) -> None:
        """Have the files that a place shows be drawn here."""
        place.draw(self.show_upload, uploads, self.shown, **QUIET)

    def show(self, event: gr.EventData) -> tuple[gr.Sidebar, str, str, str]:
        """Open at the model that was clicked."""
        return gr.Sidebar(open=True), model_view(self.desk, id_of(event)), id_of(event), ""

    def show_upload(self, uploads: list[Upload], event: gr.EventData) -> tuple[gr.Sidebar, str, Path | str, str]:
        """Open at a file that was sent."""
        number = int(id_of(event)) if id_of(event).isdecimal() else len(uploads)
        if number >= len(uploads):
            return (
                gr.Sidebar(open=True),
                notice("file: expected one that was just labelled, found none; send it again", "ld-warn"),
                "",
                "",
            )
        name = uploads[number].name
        return (
            gr.Sidebar(open=True),
            f"<h2>{text(name)}</h2>{notice('Choose how, then Draw.')}",
            Path(uploads[number].path),
            "",
        )


def model_view(desk: Desk, id: str) -> str:
    """All that is known of a model, as HTML."""
    loradex = desk.loradex
    try:
        model = loradex.zoo.get(id)
        files = loradex.zoo.files_of([id]).get(id, [])
    except ZooError as error:
        return notice(str(error), "ld-warn")
    labels = labels_of(model)
    known = (
        "read by its weights"
        if model.found_by == "weights"
        else "known by its metadata alone: no expert reads its family"
    )
    rows = [
        ("family", text(model.family)),
        ("made for", text(model.concept) if model.concept else ""),
        ("known how", known),
        ("id", text(model.id)),
    ]
    paths = [file.path for file in files] or [path for path in (path_of(model, str(loradex.zoo_folder)),) if path]
    where = "".join(f"<p class='ld-why'>{text(path, 400)} {copy_button(path, 'copy')}</p>" for path in paths[:10])
    acts = act("like", id, "More like this", "more like this") + act("compare", id, "Compare side by side", "compare")
    return (
        f'<div class="ld-drawing">{drawing(model, loradex.zoo_folder)}</div><h2>{text(model.name)}</h2><div class="ld-acts">{acts}</div>'
        + (f"<h4>What its weights say</h4>{label_bars(labels)}" if labels else "")
        + f"<h4>Facts</h4>{table(rows)}{facts_table({name: model.facts.get(name) for name in SHOWN})}<h4>Files</h4>{where}"
    )
