"""Categories: whole models in, what they were trained to tell apart out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import gradio as gr

from loradex.app.backend import Desk
from loradex.app.experts.category_prediction import SURE, CategoriesAnswer, tell_categories
from loradex.app.web.cards import QUIET, chips, html, label_bars, notice, text
from loradex.app.web.upload_inputs import file_place
from loradex.retrieval.encoder import Encoder

MOST_FILES: Final = 16


def build(desk: Desk) -> None:
    """The tab."""
    gr.Markdown(
        "Whole models that tell pictures apart: which categories each was trained on, by its weights alone. A model of a tree that no expert knows is refused."
    )
    files = file_place(label="Models (.safetensors)", file_types=[".safetensors"], height=180)
    go = gr.Button("Tell categories", variant="primary")
    results = html()
    go.click(lambda sent: tell_files(desk.loradex.encoder, sent), files, results, **QUIET)


def tell_files(encoder: Encoder, files: Sequence[str] | None) -> str:
    """A card for each file."""
    if not files or len(files) > MOST_FILES:
        return notice(
            f"files: expected 1 to {MOST_FILES}, found {len(files or [])}; drop some .safetensors files", "ld-warn"
        )
    return f'<div class="ld-files">{"".join(card(answer, len(encoder.categories)) for answer in tell_categories(encoder, files))}</div>'


def card(answer: CategoriesAnswer, experts: int) -> str:
    """One file: its likely categories, or why it could not be read."""
    name = Path(answer.file).name
    if answer.reason:
        said = notice(answer.reason.replace(answer.file, name), "ld-warn")
        return f'<section class="ld-file"><h3>{text(name)}</h3>{said}{"" if experts else notice("No expert for whole models is at hand.", "ld-note")}</section>'
    count = f"{len(answer.likely)} of {len(answer.categories)} categories"
    sure = [category for category, probability in answer.categories if probability >= SURE]
    unsure = [(category, probability) for category, probability in answer.categories if 1 - SURE < probability < SURE]
    parts = f'<div class="ld-chips">{chips([answer.tree, count])}</div>'
    if sure:
        parts += f'<p class="ld-why">Sure of these {len(sure)} ({SURE:.0%} and more):</p><div class="ld-chips">{chips(sure, "own")}</div>'
    if unsure:
        parts += f'<p class="ld-why">Less sure of {len(unsure)}:</p>{label_bars(unsure)}'
    return f'<section class="ld-file"><h3>{text(name)}</h3>{parts}</section>'
