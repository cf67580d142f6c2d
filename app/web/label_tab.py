"""The Label tab: uploaded LoRA files in, labels with calibrated probabilities out, or the answer "unknown"."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import gradio as gr

from loradex.app.backend import Backend
from loradex.app.describe.inspection import inspect_lora
from loradex.app.search.answers import LabelAnswer
from loradex.app.web.cards import preview
from loradex.app.web.elements import (
    EVENT_OPTIONS,
    action_button,
    chips,
    escape_text,
    facts_table,
    html_view,
    label_bars,
    notice,
    warning,
)
from loradex.app.web.label_downloads import download_links
from loradex.app.web.labelled_file import LabelledFile
from loradex.app.web.model_panel import ModelPanel
from loradex.app.web.upload_inputs import file_input
from loradex.index import Hit
from loradex.retrieval.errors import FileError, LoradexError
from loradex.retrieval.lora import LoraFile

MAX_LABELLED_FILES: Final = 64  # at a time
MAX_LABELS_LENGTH: Final = 200_000  # characters
NEAREST_MODELS: Final = 6  # shown for each file
SESSION_LIFETIME: Final = 900  # seconds


def build(backend: Backend, panel: ModelPanel) -> gr.State:
    """Build the tab; returns the state that holds the files labelled last."""
    gr.Markdown(
        "Predicts what a LoRA draws, from its weights alone: labels with probabilities, or “unknown” if no label has a probability above one half."
    )
    labelled_files = gr.State([], time_to_live=SESSION_LIFETIME)
    with gr.Row():
        files = file_input(label="LoRA files (.safetensors)", file_types=[".safetensors"], height=180)
        with gr.Column():
            labels = gr.Textbox(
                "",
                label="Your labels, one per line (empty: the default list)",
                lines=5,
                max_lines=12,
                max_length=MAX_LABELS_LENGTH,
            )
            count = gr.Slider(1, 20, value=5, step=1, label="Labels per file")
    button = gr.Button("Label", variant="primary")
    results = html_view()
    button.click(
        lambda paths, text, k: label_files(backend, paths, text, k),
        [files, labels, count],
        [results, labelled_files],
        **EVENT_OPTIONS,
    )
    panel.open_models_of(results)
    panel.draw_files_of(results, labelled_files)
    return labelled_files


def label_files(
    backend: Backend, files: Sequence[str] | None, labels_text: str, k: float
) -> tuple[str, list[LabelledFile]]:
    """Label uploaded files with their ``k`` best labels; returns HTML (links and a card per file), and the files."""
    if not files or len(files) > MAX_LABELLED_FILES:
        return warning(
            f"files: expected 1 to {MAX_LABELLED_FILES}, found {len(files or [])}; drop some .safetensors files above"
        ), []
    labels = [line.strip() for line in labels_text.splitlines() if line.strip()] or None
    try:
        answers = list(backend.loradex.label(files, labels, int(k)))
    except LoradexError as error:
        return warning(str(error)), []
    links = download_links(answers, backend.loradex.encoder.space.name)
    cards = "".join(file_card(backend, number, answer) for number, answer in enumerate(answers))
    labelled = [LabelledFile(Path(answer.file).name, answer.file, answer.vector) for answer in answers]
    return f'{links}<div class="ld-files">{cards}</div>', labelled


def file_card(backend: Backend, number: int, answer: LabelAnswer) -> str:
    """Card of a file: labels, or why there are none; the nearest models of the zoo; facts from its header."""
    name = Path(answer.file).name
    reason = (answer.reason or "").replace(answer.file, name)
    verdict = ""
    if answer.abstained:
        verdict = warning(reason) if answer.refused else notice(f"unknown: {reason}")
    nearest = [] if answer.vector is None else backend.loradex.zoo.search(answer.vector, NEAREST_MODELS)
    try:
        facts = inspect_lora(LoraFile.open(answer.file), hashes=False)
        problems = "".join(warning(str(problem)) for problem in facts.pop("problems"))
        del facts["file"]
        draw_button = action_button("draw", str(number), f"Draw with {name[:80]}", "draw")
        details = f"<details><summary>Facts from the file</summary>{facts_table(facts)}</details>{problems}"
    except FileError:
        draw_button = details = ""
    return (
        f'<section class="ld-file"><h3>{escape_text(name)}</h3>'
        f'<div class="ld-chips">{chips([answer.family])}{draw_button}</div>{verdict}'
        f"{label_bars((label.label, label.probability) for label in answer.labels)}"
        f"{nearest_models(backend, nearest)}{details}</section>"
    )


def nearest_models(backend: Backend, hits: Sequence[Hit]) -> str:
    """Previews of the models nearest to a file, which open them."""
    if not hits:
        return ""
    previews = [
        action_button(
            "open",
            hit.model.id,
            f"{hit.model.name[:80]}, cosine {hit.score:.2f}",
            preview(hit.model, backend.loradex.zoo_folder),
            "ld-open",
        )
        for hit in hits
    ]
    return f'<h4>Nearest models in the zoo</h4><div class="ld-near">{"".join(previews)}</div>'
