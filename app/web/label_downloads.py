"""Labels and words as files to download: CSV tables, and an archive of side-cars."""

import base64
import csv
import io
import json
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from loradex.app.describe.side_cars import new_side_car
from loradex.app.search.answers import LabelAnswer
from loradex.app.words import FileWords
from loradex.retrieval.errors import LoradexError
from loradex.retrieval.lora import LoraFile

FORMULA_PREFIXES: Final = ("=", "+", "-", "@", "\t", "\r")  # of cells that spreadsheets would run


def download_links(answers: Sequence[LabelAnswer], space: str, read: Sequence[FileWords] = ()) -> str:
    """Links that hold their files as data: addresses, so that nothing is stored on the server.

    ``read`` has the words of the files, once they are read.
    """
    labels = download_link("labels.csv", "text/csv", labels_csv(answers).encode())
    if read:
        labels += download_link("words.csv", "text/csv", words_csv(read).encode())
    side_cars = download_link("side-cars.zip", "application/zip", side_cars_zip(answers, space, read))
    explanation = '<span class="ld-why">(JSON files to put beside the LoRAs, for ComfyUI-Lora-Manager)</span>'
    return f'<p class="ld-links">{labels}{side_cars}{explanation}</p>'


def download_link(name: str, media_type: str, content: bytes) -> str:
    """A link that downloads a file."""
    encoded = base64.b64encode(content).decode()
    return f'<a download="{name}" href="data:{media_type};base64,{encoded}">Download {name}</a>'


def labels_csv(answers: Sequence[LabelAnswer]) -> str:
    """A row for each label of each file."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("file", "family", "answer", "label", "probability"))
    for answer in answers:
        name = Path(answer.file).name
        verdict = "refused" if answer.refused else "unknown" if answer.abstained else "labelled"
        labels = [(label.label, f"{label.probability:.4f}") for label in answer.labels] or [("", "")]
        writer.writerows([escape_formula(cell) for cell in (name, answer.family, verdict, *label)] for label in labels)
    return table.getvalue()


def words_csv(read: Sequence[FileWords]) -> str:
    """A row for each word of each file."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("file", "family", "word", "probability"))
    for found in read:
        rows = [(word.word, f"{word.probability:.4f}") for word in found.words] or [("", "")]
        name = Path(found.file).name
        writer.writerows([escape_formula(cell) for cell in (name, found.family, *row)] for row in rows)
    return table.getvalue()


def escape_formula(cell: str) -> str:
    """Quote a cell that a spreadsheet would take for a formula."""
    return f"'{cell}" if cell.startswith(FORMULA_PREFIXES) else cell


def side_cars_zip(answers: Sequence[LabelAnswer], space: str, read: Sequence[FileWords] = ()) -> bytes:
    """An archive of side-cars in the form of ComfyUI-Lora-Manager, for all readable files; deterministic."""
    archive, words = io.BytesIO(), {found.file: found.likely for found in read}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for number, answer in enumerate(answers, 1):
            name = f"{Path(answer.file).stem}.metadata.json"
            with suppress(LoradexError):
                lora = LoraFile.open(answer.file)
                content = json.dumps(new_side_car(lora, answer, space, words.get(answer.file, ())), indent=2)
                opened.writestr(zipfile.ZipInfo(f"{number}/{name}" if name in opened.namelist() else name), content)
    return archive.getvalue()
