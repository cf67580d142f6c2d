"""A contact sheet: the first picture of each concept with its word, so that a person sees what was drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from loradex.app.growing.folder import Concept, save_picture
from loradex.app.pictures import read_picture

SIDE: Final = 96  # pixels
LINE: Final = 16  # pixels of a word below its picture
COLUMNS: Final = 12
MAX_SHOWN: Final = 240  # concepts; of more, as many spread over all
MAX_LETTERS: Final = 15


def make_contact_sheet(concepts: Sequence[Concept], path: Path) -> None:
    """Write a contact sheet of concepts that have their pictures."""
    shown = concepts[:: -(-len(concepts) // MAX_SHOWN)]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * SIDE, rows * (SIDE + LINE)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, concept in enumerate(shown):
        left, top = number % columns * SIDE, number // columns * (SIDE + LINE)
        picture = read_picture(str(concept.pictures[0]))
        picture = picture.resize((SIDE - 4, SIDE - 4), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left + 2, top + 2))
        word = concept.word if len(concept.word) <= MAX_LETTERS else concept.word[: MAX_LETTERS - 1] + "…"
        draw.text((left + SIDE / 2, top + SIDE), word, "black", font, "ma")
    save_picture(sheet, path)
