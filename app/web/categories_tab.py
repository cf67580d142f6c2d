"""The Categories tab: uploaded classifiers in, the categories that they were trained on out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import gradio as gr

from loradex.app.backend import Backend
from loradex.app.experts.category_prediction import SURE_PROBABILITY, CategoriesAnswer, predict_categories
from loradex.app.web.elements import EVENT_OPTIONS, chips, escape_text, html_view, label_bars, notice, warning
from loradex.app.web.upload_inputs import file_input
from loradex.retrieval.encoder import Encoder

MAX_CLASSIFIERS: Final = 16  # at a time


def build(backend: Backend) -> None:
    """Build the tab."""
    gr.Markdown(
        "Predicts which categories an image classifier was trained on, from its weights alone. "
        "It needs an expert (a small model that reads weights) for the base model that the classifier was fine-tuned from."
    )
    files = file_input(label="Classifier files (.safetensors)", file_types=[".safetensors"], height=180)
    button = gr.Button("Predict categories", variant="primary")
    results = html_view()
    button.click(lambda paths: predict_files(backend.loradex.encoder, paths), files, results, **EVENT_OPTIONS)


def predict_files(encoder: Encoder, files: Sequence[str] | None) -> str:
    """Predict the categories of uploaded files; returns a card for each."""
    if not files or len(files) > MAX_CLASSIFIERS:
        return warning(
            f"files: expected 1 to {MAX_CLASSIFIERS}, found {len(files or [])}; drop some .safetensors files above"
        )
    has_expert = bool(encoder.categories)
    cards = "".join(file_card(answer, has_expert) for answer in predict_categories(encoder, files))
    return f'<div class="ld-files">{cards}</div>'


def file_card(answer: CategoriesAnswer, has_expert: bool) -> str:
    """Card of a file: the categories that are sure, the others with their probabilities; or why it was refused."""
    name = Path(answer.file).name
    if answer.reason:
        body = warning(answer.reason.replace(answer.file, name))
        if not has_expert:
            body += notice("No expert for classifiers is loaded.")
    else:
        body = category_list(answer)
    return f'<section class="ld-file"><h3>{escape_text(name)}</h3>{body}</section>'


def category_list(answer: CategoriesAnswer) -> str:
    """The categories of a file by how sure they are; those that are surely not its own are left out."""
    count = f"{len(answer.likely)} of {len(answer.categories)} categories"
    sure = [category for category, probability in answer.categories if probability >= SURE_PROBABILITY]
    unsure = [
        (category, probability)
        for category, probability in answer.categories
        if 1 - SURE_PROBABILITY < probability < SURE_PROBABILITY
    ]
    parts = f'<div class="ld-chips">{chips([answer.tree, count])}</div>'
    if sure:
        heading = f"Sure ({len(sure)} with a probability of {SURE_PROBABILITY:.0%} or more):"
        parts += f'<p class="ld-why">{heading}</p><div class="ld-chips">{chips(sure, "own")}</div>'
    if unsure:
        parts += f'<p class="ld-why">Less sure ({len(unsure)}):</p>{label_bars(unsure)}'
    return parts
