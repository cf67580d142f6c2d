"""Everyday words and pictures: what a new space is centred on, and what evidence is compared with.

The words are nouns of WordNet 3.0, with styles, materials and scenes of pictures; the pictures are drawings of the
miniature's LoRAs. ``scripts/everyday_words.py`` makes both.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from PIL import Image

WORDS_FILE: Final = Path(__file__).with_name("everyday_words.txt")
PICTURES_FILE: Final = Path(__file__).with_name("everyday_pictures.png")
PICTURES_A_ROW: Final = 8  # and as many rows
PICTURE_SIZE: Final = 64  # pixels, each side


@cache
def everyday_words() -> tuple[str, ...]:
    """Return about 2,500 names of things that can be seen, in alphabetical order."""
    lines = WORDS_FILE.read_text("utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def everyday_pictures() -> list[Image.Image]:
    """Return 64 drawings of different things."""
    with Image.open(PICTURES_FILE) as sheet:
        sheet.load()
        starts = range(0, PICTURES_A_ROW * PICTURE_SIZE, PICTURE_SIZE)
        return [sheet.crop((left, top, left + PICTURE_SIZE, top + PICTURE_SIZE)) for top in starts for left in starts]


def everyday_digest() -> str:
    """Return a digest of the words and of the pixels of the pictures."""
    digest = hashlib.sha256("\n".join(everyday_words()).encode())
    for picture in everyday_pictures():
        digest.update(picture.convert("RGB").tobytes())
    return digest.hexdigest()
