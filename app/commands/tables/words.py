"""Table of ``loradex words``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from loradex.app.commands.tables.adaptive import AdaptiveTable
from loradex.app.commands.tables.columns import Column, Kind

if TYPE_CHECKING:
    from loradex.app.words import FileWords

BAR_WIDTH = 20  # characters of a probability of 1
COLUMNS = (
    Column("file", Kind.SECTION),
    Column("family", drop=2),
    Column("word", Kind.PROSE),
    Column("probability", Kind.NUMBER),
    Column("", drop=1),
)


def words_table(answers: Sequence[FileWords]) -> AdaptiveTable:
    """The words of the files that could be read, a row for each word; one row for a file without words."""
    readable = [answer for answer in answers if answer.readable]
    rows = [(answer.file, answer.family, *cells) for answer in readable for cells in word_cells(answer)]
    return AdaptiveTable(f"{len(readable)} of {len(answers)} files", COLUMNS, rows)


def word_cells(answer: FileWords) -> Iterator[tuple[str, str, str]]:
    """Each word with its probability, as a number and as a bar; instead of words that there are none."""
    if answer.reason is not None:
        yield f"no words to be read ({answer.nothing or 0:.0%})", "", ""
        return
    for word in answer.words:
        yield word.word, f"{word.probability:.0%}", "█" * round(BAR_WIDTH * word.probability)
