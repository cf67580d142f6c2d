"""Columns of a table, and which of them fit into a line of a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import cached_property
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from loradex.app.commands.tables.text import plain, shorten_folder, wrap

GAP: Final = "  "  # between columns
MIN_PROSE: Final = 20  # width below which a text is not wrapped
COMFORTABLE_PROSE: Final = 40  # width to which a text is wrapped before names are
MIN_NAME: Final = 24  # width below which the column of names, and folders below them, is not narrowed
UNLIMITED: Final = 10_000
WORD: Final = re.compile(r"[^ /]+/?")  # what ``wrap`` breaks only if it is longer than a line
DIM: Final = "dim"

Cell = str | list[str]  # a list is shown with commas


class Kind(Enum):
    """The content of a column."""

    TEXT = auto()  # shown whole, on one line
    NUMBER = auto()  # the same, aligned to the right
    PROSE = auto()  # a text or a list that is wrapped if it is too long
    NAME = auto()  # the name of what the row describes
    FOLDER = auto()  # the folder of that, shown in a column of its own or below the name
    FILE = auto()  # the path of what the row describes; a terminal shows it as name and folder
    PATH = auto()  # the path that belongs to a name; a terminal shows its folder
    ID = auto()  # shown on a wide terminal, or if asked for
    SECTION = auto()  # what successive rows have in common; a terminal shows it as a heading above them


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; where room is short, the highest ``drop`` is dropped first, and 0 never."""

    heading: str
    kind: Kind = Kind.TEXT
    drop: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The widths to which names, folders below them, texts and words of texts may be narrowed."""

    name: int = UNLIMITED
    folder: int = UNLIMITED
    prose: int = MIN_PROSE
    word: int = UNLIMITED


@dataclass(frozen=True)
class FilledColumn:
    """A column with its cells; ``folders`` are shown below the cells."""

    heading: str
    kind: Kind
    drop: int
    cells: list[Cell]
    folders: list[str] = field(default_factory=list)

    @cached_property
    def full_width(self) -> int:
        """The width at which nothing is wrapped or shortened."""
        return max(self.cell_width, cell_len(self.heading), self.folder_width)

    def min_width(self, limits: Limits) -> int:
        """The minimal width of the column, if what is wider than the limits is wrapped or shortened."""
        cells = self.cell_width
        if self.kind is Kind.PROSE:
            cells = max(min(cells, limits.prose), min(max(map(longest_word, self.cells)), limits.word))
        elif self.kind is Kind.NAME:
            cells = min(cells, limits.name)
        heading = max(cell_len(word) for word in self.heading.split(" "))
        return max(cells, heading, min(self.folder_width, limits.folder))

    @cached_property
    def cell_width(self) -> int:
        """The width of the widest cell."""
        return max((cell_len(one_line(cell)) for cell in self.cells), default=0)

    @cached_property
    def folder_width(self) -> int:
        """The width of the widest folder below a cell."""
        return max(map(cell_len, self.folders), default=0)

    def heading_lines(self, width: int) -> list[Text]:
        """The lines of the heading."""
        return [Text(line, "bold") for line in wrap(self.heading, width)]

    def cell_lines(self, row: int, width: int) -> list[Text]:
        """The lines of a cell."""
        cell = self.cells[row]
        if self.kind is Kind.PROSE:
            return list(map(Text, wrap(cell, width)))
        lines = [Text(one_line(cell), DIM if self.kind is Kind.FOLDER else "")]
        if self.folders and self.folders[row] not in ("", "."):
            lines.append(Text(shorten_folder(self.folders[row], width), DIM))
        return lines


def fit(columns: Sequence[FilledColumn], width: int) -> tuple[list[FilledColumn], list[int]] | None:
    """Choose the columns that fit into a line, and their widths; None if the terminal is too narrow for columns.

    Tried one after another: all columns; folders below the names; texts wrapped; long names in lines of their own, and
    columns with a ``drop`` above 2 dropped; folders shortened, and columns with 2 dropped; long words in lines of their
    own, and columns with 1 dropped. ``AdaptiveTable.grid`` prints the lines of long names and words.
    """
    below_names = folders_below_names(columns)
    for arranged in list(columns), below_names:
        widths = [column.full_width for column in arranged]
        if total_width(widths) <= width:
            return arranged, widths
    chosen = (
        drop_columns(below_names, width, Limits(prose=COMFORTABLE_PROSE), kept=UNLIMITED)
        or drop_columns(below_names, width, Limits(name=width // 2), kept=2)
        or drop_columns(below_names, width, Limits(name=MIN_NAME), kept=2)
        or drop_columns(below_names, width, Limits(name=MIN_NAME, folder=MIN_NAME), kept=1)
        or drop_columns(below_names, width, Limits(MIN_NAME, MIN_NAME, MIN_PROSE, MIN_PROSE), kept=0)
    )
    if chosen is None:
        return None
    arranged, widths = chosen
    for _ in range(width - total_width(widths)):
        shortened = [at for at, column in enumerate(arranged) if widths[at] < column.full_width]
        if shortened:
            widths[min(shortened, key=lambda at: widths[at])] += 1
    return arranged, widths


def drop_columns(
    columns: Sequence[FilledColumn], width: int, limits: Limits, kept: int
) -> tuple[list[FilledColumn], list[int]] | None:
    """Drop the least important columns until the others fit into a line.

    Returns:
        The other columns and their minimal widths; None if those with ``drop`` up to ``kept`` do not fit.
    """
    arranged = list(columns)
    while total_width(widths := [column.min_width(limits) for column in arranged]) > width:
        least_important = max(arranged, key=lambda column: column.drop)
        if least_important.drop <= kept:
            return None
        arranged.remove(least_important)
    return arranged, widths


def folders_below_names(columns: Sequence[FilledColumn]) -> list[FilledColumn]:
    """The columns, with the folders in the column of the names."""
    folders = [one_line(cell) for column in columns if column.kind is Kind.FOLDER for cell in column.cells]
    return [
        replace(column, folders=folders) if column.kind is Kind.NAME else column
        for column in columns
        if column.kind is not Kind.FOLDER
    ]


def longest_word(cell: Cell) -> int:
    """The width of the longest piece of a cell without a space and without a slash inside."""
    return max(map(cell_len, WORD.findall(one_line(cell))), default=0)


def total_width(widths: Sequence[int]) -> int:
    """The width of columns with the gaps between them."""
    return sum(widths) + len(GAP) * max(len(widths) - 1, 0)


def as_cell(value: object) -> Cell:
    """A value as a text, or a list as texts, without control characters."""
    return [plain(item) for item in value] if isinstance(value, list) else "" if value is None else plain(value)


def one_line(cell: Cell) -> str:
    """A cell as one text."""
    return cell if isinstance(cell, str) else ", ".join(cell)
