"""The Label tab: uploaded LoRA files in; labels with calibrated probabilities, or "unknown", and trained words out."""

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
from loradex.app.web.label_words import WordReading, cards_of, lines_of
from loradex.app.web.labelled_file import LabelledFile
from loradex.app.web.model_panel import ModelPanel
from loradex.app.web.upload_inputs import file_input
from loradex.app.web.waiting import render_commands
from loradex.index import Hit
from loradex.retrieval.errors import FileError, LoradexError
from loradex.retrieval.lora import LoraFile

MAX_LABELLED_FILES: Final = 64  # at a time
MAX_LABELS_LENGTH: Final = 200_000  # characters
NEAREST_MODELS: Final = 6  # shown for each file
SESSION_LIFETIME: Final = 900  # seconds
WAYS: Final = "Its words may tell what it draws meanwhile. Commands that get an expert:"


def build(backend: Backend, panel: ModelPanel) -> gr.State:
    """Build the tab; returns the state that holds the files labelled last."""
    gr.Markdown(
        "Predicts what a LoRA draws, from its weights alone: labels with probabilities, or “unknown” if no label has a probability above one half. "
        "Then reads the words that it was trained with, such as a trigger word, if its base model is at hand."
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
            words = gr.Textbox(
                "",
                label="Words to look for, one per line (empty: common English words)",
                lines=2,
                max_lines=12,
                max_length=MAX_LABELS_LENGTH,
            )
            count = gr.Slider(1, 20, value=5, step=1, label="Labels and words per file")
    button = gr.Button("Label", variant="primary")
    links, reading = html_view(), WordReading(backend)
    results = html_view()
    labelled = button.click(
        lambda paths, text, k: label_files(backend, paths, text, k),
        [files, labels, count],
        [results, labelled_files, links],
        **EVENT_OPTIONS,
    )
    reading.start_after(labelled, [labelled_files, words, count], [results, links])
    panel.open_models_of(results)
    panel.draw_files_of(results, labelled_files)
    return labelled_files


def label_files(
    backend: Backend, files: Sequence[str] | None, labels_text: str, k: float
) -> tuple[str, list[LabelledFile], str]:
    """Label uploaded files with their ``k`` best labels; returns a card for each, the files, and links to downloads."""
    if not files or len(files) > MAX_LABELLED_FILES:
        expected = f"expected 1 to {MAX_LABELLED_FILES}, found {len(files or [])}"
        return warning(f"files: {expected}; drop some .safetensors files above"), [], ""
    try:
        answers = list(backend.loradex.label(files, lines_of(labels_text) or None, int(k)))
    except LoradexError as error:
        return warning(str(error)), [], ""
    labelled = [
        LabelledFile(Path(answer.file).name, answer.file, answer, file_card(backend, number, answer))
        for number, answer in enumerate(answers)
    ]
    return cards_of(labelled), labelled, download_links(answers, backend.loradex.encoder.space.name)


def file_card(backend: Backend, number: int, answer: LabelAnswer) -> tuple[str, str]:
    """Card of a file: labels, or why there are none; after its words the nearest models of the zoo, and facts."""
    name = Path(answer.file).name
    reason = (answer.reason or "").replace(answer.file, name)
    verdict = ""
    if answer.abstained:
        verdict = warning(reason) if answer.refused else notice(f"unknown: {reason}")
        verdict += render_commands(answer.next, WAYS)
    nearest = [] if answer.vector is None else backend.loradex.zoo.search(answer.vector, NEAREST_MODELS)
    try:
        facts = inspect_lora(LoraFile.open(answer.file), hashes=False)
        problems = "".join(warning(str(problem)) for problem in facts.pop("problems"))
        del facts["file"]
        draw_button = action_button("draw", str(number), f"Draw with {name[:80]}", "draw")
        details = f"<details><summary>Facts from the file</summary>{facts_table(facts)}</details>{problems}"
    except FileError:
        draw_button = details = ""
    before = (
        f'<section class="ld-file"><h3>{escape_text(name)}</h3>'
        f'<div class="ld-chips">{chips([answer.family])}{draw_button}</div>{verdict}'
        f"{label_bars((label.label, label.probability) for label in answer.labels)}"
    )
    return before, f"{nearest_models(backend, nearest)}{details}</section>"


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
