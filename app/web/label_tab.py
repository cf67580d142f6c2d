"""Label: files in, words with calibrated probabilities out, or an honest "unknown"."""

import base64
import csv
import io
import json
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import gradio as gr

from loradex.app.backend import Desk
from loradex.app.describe.inspection import describe
from loradex.app.describe.side_cars import side_car_of
from loradex.app.search.answers import LabelAnswer
from loradex.app.web.cards import QUIET, act, chips, drawing, facts_table, html, label_bars, notice, text
from loradex.app.web.labelled_file import Upload
from loradex.app.web.model_panel import Panel
from loradex.app.web.upload_inputs import file_place
from loradex.index import Hit
from loradex.retrieval.errors import FileError, LoradexError
from loradex.retrieval.lora import LoraFile

MOST_FILES: Final = 64
LONGEST_LIST: Final = 200_000  # characters
NEAR: Final = 6
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def build(desk: Desk, panel: Panel) -> gr.State:
    """The tab; the state holds what was labelled last."""
    uploads = gr.State([], time_to_live=900)
    with gr.Row():
        files = file_place(label="LoRA files (.safetensors)", file_types=[".safetensors"], height=180)
        with gr.Column():
            words = gr.Textbox(
                "",
                label="Your labels, one a line (empty: the default list)",
                lines=5,
                max_lines=12,
                max_length=LONGEST_LIST,
            )
            count = gr.Slider(1, 20, value=5, step=1, label="Labels a file")
    go = gr.Button("Label", variant="primary")
    results = html()
    go.click(lambda sent, said, k: label_files(desk, sent, said, k), [files, words, count], [results, uploads], **QUIET)
    panel.opens(results)
    panel.draws(results, uploads)
    return uploads


def label_files(desk: Desk, files: Sequence[str] | None, words: str, k: float) -> tuple[str, list[Upload]]:
    """A card for each file, links to take the answers away, and what was sent."""
    if not files or len(files) > MOST_FILES:
        return notice(
            f"files: expected 1 to {MOST_FILES}, found {len(files or [])}; drop some .safetensors files", "ld-warn"
        ), []
    labels = [line.strip() for line in words.splitlines() if line.strip()] or None
    try:
        answers = list(desk.loradex.label(files, labels, int(k)))
    except LoradexError as error:
        return notice(str(error), "ld-warn"), []
    cards = [file_card(desk, number, answer) for number, answer in enumerate(answers)]
    uploads = [Upload(Path(answer.file).name, answer.file, answer.vector) for answer in answers]
    return f'{downloads(answers, desk.loradex.encoder.space.name)}<div class="ld-files">{"".join(cards)}</div>', uploads


def file_card(desk: Desk, number: int, answer: LabelAnswer) -> str:
    """One file: what it draws, or that this is unknown and why; its facts; its nearest models."""
    name = Path(answer.file).name
    reason = (answer.reason or "").replace(answer.file, name)
    said = (
        notice(reason if answer.refused else f"unknown: {reason}", "ld-warn" if answer.refused else "ld-note")
        if answer.abstained
        else ""
    )
    near = [] if answer.vector is None else desk.loradex.zoo.search(answer.vector, NEAR)
    try:
        facts = describe(LoraFile.open(answer.file), hashes=False)
        problems = "".join(notice(str(problem), "ld-warn") for problem in facts.pop("problems"))
        del facts["file"]
        draw = act("draw", str(number), f"Draw what {name[:80]} does", "draw it")
        about = f"<details><summary>Facts of the file</summary>{facts_table(facts)}</details>{problems}"
    except FileError:
        draw = about = ""
    return (
        f'<section class="ld-file"><h3>{text(name)}</h3><div class="ld-chips">{chips([answer.family])}{draw}</div>{said}'
        f"{label_bars((label.label, label.probability) for label in answer.labels)}{nearest(desk, near)}{about}</section>"
    )


def nearest(desk: Desk, hits: Sequence[Hit]) -> str:
    """The models of the zoo nearest to a file."""
    if not hits:
        return ""
    folder = desk.loradex.zoo_folder
    small = [
        act(
            "open",
            hit.model.id,
            f"{hit.model.name[:80]}, cosine {hit.score:.2f}",
            drawing(hit.model, folder),
            "ld-open",
        )
        for hit in hits
    ]
    return f'<h4>Nearest models</h4><div class="ld-near">{"".join(small)}</div>'


def downloads(answers: Sequence[LabelAnswer], space: str) -> str:
    """Links that carry what they give, so that nothing is kept on the server."""
    side_cars = link("side-cars.zip", "application/zip", side_cars_of(answers, space))
    return f'<p class="ld-links">{link("labels.csv", "text/csv", csv_of(answers).encode())}{side_cars}</p>'


def link(name: str, kind: str, content: bytes) -> str:
    """A link to a file within the page."""
    return f'<a download="{name}" href="data:{kind};base64,{base64.b64encode(content).decode()}">Download {name}</a>'


def csv_of(answers: Sequence[LabelAnswer]) -> str:
    """A line for each label of each file, with nothing that a spreadsheet would run."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("file", "family", "answer", "label", "probability"))
    for answer in answers:
        name = Path(answer.file).name
        verdict = "refused" if answer.refused else "unknown" if answer.abstained else "labelled"
        lines = [(label.label, f"{label.probability:.4f}") for label in answer.labels] or [("", "")]
        writer.writerows([harmless(cell) for cell in (name, answer.family, verdict, *line)] for line in lines)
    return table.getvalue()


def side_cars_of(answers: Sequence[LabelAnswer], space: str) -> bytes:
    """A side-car for each file that can be read, as ComfyUI-Lora-Manager keeps them, in one archive, the same for the same answers."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for number, answer in enumerate(answers, 1):
            name = f"{Path(answer.file).stem}.metadata.json"
            with suppress(LoradexError):
                content = json.dumps(side_car_of(LoraFile.open(answer.file), answer, space), indent=2)
                opened.writestr(zipfile.ZipInfo(f"{number}/{name}" if name in opened.namelist() else name), content)
    return archive.getvalue()


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell
