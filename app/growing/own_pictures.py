"""Pictures of a person's own in place of drawings: a folder with a folder of pictures for each concept."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from loradex.app.growing.folder import Concept, save_picture
from loradex.app.growing.word_list import Word
from loradex.app.pictures import BadPicture, is_picture_name, natural_order, read_picture
from loradex.retrieval.errors import QueryError

MAX_CONCEPTS: Final = 100_000


def words_of_folder(folder: Path) -> tuple[Word, ...]:
    """The concepts of a folder: the names of the folders in it that hold pictures, ``_`` as a space.

    Raises:
        QueryError: it cannot be read, or holds no such folder.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise QueryError(
            f"--pictures: expected a folder, found: {error}; name one with a folder for each concept"
        ) from None
    words = tuple(Word(word_of(name), "") for name in names[:MAX_CONCEPTS] if pictures_in(folder / name))
    if not words:
        raise QueryError(
            f"--pictures: expected a folder of pictures for each concept in {folder}, found none; lay them out as CONCEPT/1.png"
        )
    return words


def copy_pictures(folder: Path, concept: Concept) -> None:
    """Copy pictures of a concept, scaled down, beside the place of its LoRA, at most as many as it has paths.

    The first is written last: where it is there, all are.

    Raises:
        QueryError: there is no picture that can be read.
    """
    folders = [path for path in sorted(folder.iterdir()) if word_of(path.name) == concept.word]
    readable: list[Image.Image] = []
    for path in (path for each in folders for path in pictures_in(each)):
        try:
            readable.append(read_picture(str(path)))
        except BadPicture:
            continue
        if len(readable) == len(concept.pictures):
            break
    if not readable:
        raise QueryError(
            f"{folder}: expected a picture of {concept.word!r} that can be read, found none; replace it, or delete its folder"
        )
    for picture, path in reversed(list(zip(readable, concept.pictures, strict=False))):
        save_picture(picture, path)


def pictures_in(folder: Path) -> Sequence[Path]:
    """The pictures in a folder, in their natural order."""
    return sorted(
        (path for path in folder.iterdir() if is_picture_name(path.name)), key=lambda path: natural_order(path.name)
    )


def word_of(name: str) -> str:
    """The word that a folder's name stands for."""
    return " ".join(name.replace("_", " ").split())
