"""How a zoo notes by which base model the words of a file were read: behind the reader, before the mark of pictures.

``KnownFile.reader`` is ``READER~FAMILY:BASE`` for a file of a family whose words can be read; ``BASE``, the beginning
of the base model's fingerprint, is missing if there was none. So only files of its family are read again when a base
model is added or changes.
"""

import re
from dataclasses import replace
from typing import Final

from loradex.app.indexing.picture_mark import MARK as PICTURE_MARK
from loradex.index import KnownFile

MARK: Final = "~"
FORM: Final = re.compile(r"~([\w-]+):(\w*)")
FINGERPRINT_LENGTH: Final = 12


def words_mark(family: str, fingerprint: str | None) -> str:
    """The mark of a file of a family, read by the base model of a fingerprint, or by none."""
    return f"{MARK}{family}:{(fingerprint or '')[:FINGERPRINT_LENGTH]}"


def mark_of(reader: str) -> str:
    """The mark behind a reader; empty if there is none."""
    found = FORM.search(reader)
    return found[0] if found else ""


def parse_mark(mark: str) -> tuple[str, str] | None:
    """The family and the beginning of the fingerprint in a mark; None if there is no mark."""
    found = FORM.fullmatch(mark)
    return (found[1], found[2]) if found else None


def with_words_mark(file: KnownFile, mark: str) -> KnownFile:
    """A file with a mark in place of the one that it has."""
    reader, plus, pictures = file.reader.partition(PICTURE_MARK)
    return replace(file, reader=f"{reader.partition(MARK)[0]}{mark}{plus}{pictures}")


def bare_reader(reader: str) -> str:
    """A reader without its marks."""
    return reader.partition(MARK)[0].partition(PICTURE_MARK)[0]


def with_reader(file: KnownFile, reader: str) -> KnownFile:
    """A file with another reader, and the marks that it has."""
    return replace(file, reader=reader + file.reader[len(bare_reader(file.reader)) :])
