"""How a zoo notes which pictures lay beside a file when it was read: behind the reader, so that a change is noticed.

``KnownFile.reader`` is ``READER`` without pictures, else ``READER+DIGEST``, and ``READER+DIGEST?`` if nothing could
place them.
"""

from dataclasses import replace
from typing import Final

from loradex.app.pictures import PictureFile, signature
from loradex.index import KnownFile

MARK: Final = "+"
NOT_PLACED: Final = "?"


def marked(file: KnownFile, pictures: tuple[PictureFile, ...]) -> KnownFile:
    """A file with a mark of its pictures."""
    return replace(file, reader=f"{file.reader}{MARK}{signature(pictures)}") if pictures else file


def not_placed(file: KnownFile) -> KnownFile:
    """A file with the mark that its pictures were not placed."""
    return replace(file, reader=file.reader + NOT_PLACED)


def has_pictures(reader: str) -> bool:
    """Whether a file had pictures."""
    return MARK in reader
