"""Tables that adapt to the width of the terminal: names stay whole, and less important columns are dropped.

The first of these layouts is chosen that fits: all columns in a line; the folders below the names; texts wrapped as
well, and columns dropped; long names and words in lines of their own; each row as a paragraph that begins with its
name. In a pipe or a file every row is one line with all columns, however long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from loradex.app.commands.tables.columns import (
    DIM,
    GAP,
    Cell,
    Column,
    FilledColumn,
    Kind,
    as_cell,
    fit,
    longest_word,
    one_line,
    total_width,
)
from loradex.app.commands.tables.text import plain, relative_folders, shorten_folder, split_path, wrap

WIDE: Final = 120  # width of a terminal from which ids are shown
INDENT: Final = 4  # of what stands below a name
RULE: Final = "─"
BOLD: Final = "bold"


class AdaptiveTable:
    """A table with a title above and notes below, for rich to print."""

    def __init__(
        self,
        title: str,
        columns: Sequence[Column],
        rows: Iterable[Sequence[object]],
        notes: Iterable[str] = (),
        ids: bool = False,
    ) -> None:
        """Take the cells row by row; ``ids`` shows ids on a narrow terminal too."""
        self.title, self.columns, self.ids = plain(title), columns, ids
        self.rows = [tuple(map(as_cell, row)) for row in rows]
        self.notes = [plain(note) for note in notes]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the lines."""
        for line in self.terminal_lines(options.max_width) if console.is_terminal else self.piped_lines():
            line.no_wrap, line.overflow = True, "ignore"
            line.rstrip()
            yield line

    def fits(self, width: int) -> bool:
        """Whether a terminal of this width shows every column in a line."""
        return total_width([column.full_width for column in self.terminal_columns(width)[1]]) <= width

    def piped_lines(self) -> Iterator[Text]:
        """Every row in one line with all columns, whatever its width."""
        cells = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        columns = [FilledColumn(c.heading, c.kind, 0, list(each)) for c, each in zip(self.columns, cells, strict=True)]
        widths = [column.full_width for column in columns]
        yield Text(self.title)
        yield from side_by_side([[Text(column.heading)] for column in columns], columns, widths)
        for row in self.rows:
            yield from side_by_side([[Text(one_line(cell))] for cell in row], columns, widths)
        yield from map(Text, self.notes)

    def terminal_lines(self, width: int) -> Iterator[Text]:
        """The table in the first layout that fits into a terminal of this width."""
        common_folder, columns = self.terminal_columns(width)
        yield from wrapped(self.title, width, BOLD)
        yield from wrapped(common_folder, width, DIM)
        if columns:
            yield Text()
            fitting = fit(columns, width)
            yield from self.grid(*fitting, width) if fitting else self.paragraphs(columns, width)
        for note in self.notes:
            yield Text()
            yield from wrapped(note, width)

    def terminal_columns(self, width: int) -> tuple[str, list[FilledColumn]]:
        """A note on the folder of all files, and the columns that are not empty, files as names and folders."""
        note, shown = "", list[FilledColumn]()
        for at, column in enumerate(self.columns):
            heading, kind, cells = column.heading, column.kind, [row[at] for row in self.rows]
            if kind is Kind.SECTION or kind is Kind.ID and not (self.ids or width >= WIDE):
                continue
            if kind is Kind.FILE:
                names: list[Cell] = [split_path(one_line(cell))[1] for cell in cells]
                shown.append(FilledColumn(heading, Kind.NAME, 0, names))
            if kind in (Kind.FILE, Kind.PATH):
                heading, kind = "folder", Kind.FOLDER
                note, cells = relative_to_common_folder(cells)
            if any(cells):
                shown.append(FilledColumn(heading, kind, column.drop, cells))
        return note, shown

    def grid(self, columns: list[FilledColumn], widths: list[int], width: int) -> Iterator[Text]:
        """Headings, then the rows of each section, in columns."""
        headings = [column.heading_lines(each) for column, each in zip(columns, widths, strict=True)]
        yield from side_by_side(headings, columns, widths)
        yield Text(RULE * total_width(widths), DIM)
        for number, (section, rows) in enumerate(self.sections()):
            yield from [Text()] if number else []
            yield from wrapped(section, width, BOLD)
            for row in rows:
                cells = [column.cell_lines(row, each) for column, each in zip(columns, widths, strict=True)]
                long_text = take_long_text(cells, columns[-1], row, widths[-1], width)
                yield from take_long_name(cells, columns, widths, width)
                if any(line.plain for lines in cells for line in lines):
                    yield from side_by_side(cells, columns, widths)
                yield from long_text

    def paragraphs(self, columns: list[FilledColumn], width: int) -> Iterator[Text]:
        """Each row as its name, its folder, and its other cells with their headings."""
        name = next((column for column in columns if column.kind is Kind.NAME), columns[0])
        number = columns[0] if columns[0].kind is Kind.NUMBER and not columns[0].heading else None
        others = [column for column in columns if column not in (name, number)]
        for section, rows in self.sections():
            yield from wrapped(section, width, BOLD)
            for row in rows:
                marker = one_line(number.cells[row]) if number else ""
                indent = INDENT if marker else 0
                for line in wrap(name.cells[row], max(width - indent, 1)):
                    yield Text(f"{marker:>{INDENT - 1}} " if marker else " " * indent).append(line, BOLD)
                    marker = ""
                for detail in details(others, row, max(width - INDENT, 1)):
                    yield Text(" " * INDENT).append_text(detail)

    def sections(self) -> Iterator[tuple[str, list[int]]]:
        """The heading of each section and the numbers of its rows; one section without a heading if there are none."""
        at = next((at for at, column in enumerate(self.columns) if column.kind is Kind.SECTION), None)
        for heading, rows in groupby(range(len(self.rows)), lambda row: "" if at is None else self.rows[row][at]):
            yield one_line(heading), list(rows)


@dataclass(frozen=True, slots=True)
class FirstFitting:
    """The first of some tables that fits into the terminal with every column, else the last; in a pipe the first."""

    tables: Sequence[AdaptiveTable]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the table."""
        fitting = (table for table in self.tables if not console.is_terminal or table.fits(options.max_width))
        yield next(fitting, self.tables[-1])


def with_blank_lines(tables: Iterable[RenderableType]) -> Group:
    """Tables with a blank line between them."""
    return Group(*(part for number, table in enumerate(tables) for part in ([Text(), table] if number else [table])))


def relative_to_common_folder(paths: Sequence[Cell]) -> tuple[str, list[Cell]]:
    """A note on the folder that files have in common, and each file's folder below it, or nothing if all lie in it."""
    common, folders = relative_folders([split_path(one_line(path))[0] if path else None for path in paths])
    if set(folders) <= {"", "."}:
        return f"in {common}" if common else "", ["" for _ in paths]
    return f"in {common} and below" if common else "", list(folders)


def details(columns: Sequence[FilledColumn], row: int, width: int) -> Iterator[Text]:
    """Yield the folder of a row, then its short cells side by side with their headings, then its texts."""
    line = ""
    for column in (column for column in columns if column.kind is not Kind.PROSE):
        text = one_line(column.cells[row]).strip()
        if column.kind is Kind.FOLDER and text != ".":
            yield from wrapped(shorten_folder(text, width), width, DIM)
        elif text and column.kind is not Kind.FOLDER:
            text = f"{column.heading} {text}".strip()
            longer = f"{line}   {text}" if line else text
            if line and cell_len(longer) > width:
                yield from wrapped(line, width)
                longer = text
            line = longer
    yield from wrapped(line, width)
    for column in (column for column in columns if column.kind is Kind.PROSE):
        cell = column.cells[row]
        if cell:
            heading = f"{column.heading}: " if column.heading else ""
            yield from wrapped(heading + cell if isinstance(cell, str) else [heading + cell[0], *cell[1:]], width)


def take_long_name(
    cells: list[list[Text]], columns: Sequence[FilledColumn], widths: Sequence[int], width: int
) -> Iterator[Text]:
    """Take a name that is wider than its column out of the cells, and yield its line.

    That has the cells on the left of the name if the name fits beside them; else the name alone.
    """
    at = next((at for at, column in enumerate(columns) if column.kind is Kind.NAME), None)
    if at is None or cells[at][0].cell_len <= widths[at]:
        return
    name = cells[at].pop(0)
    room = width - total_width([*widths[:at], 0])
    if name.cell_len > room:
        yield from wrapped(name.plain, width)
    else:
        yield from side_by_side([*cells[:at], [name]], columns[: at + 1], [*widths[:at], room])
        cells[:at] = [[] for _ in range(at)]


def take_long_text(
    cells: list[list[Text]], last_column: FilledColumn, row: int, column_width: int, width: int
) -> list[Text]:
    """Take a text with a word that is wider than its column, the last one, out of the cells, and return its lines."""
    text = last_column.cells[row]
    if last_column.kind is not Kind.PROSE or longest_word(text) <= column_width:
        return []
    cells[-1] = []
    return [Text(" " * INDENT + line) for line in wrap(text, max(width - INDENT, 1))]


def side_by_side(
    cells: Sequence[Sequence[Text]], columns: Sequence[FilledColumn], widths: Sequence[int]
) -> Iterator[Text]:
    """Yield lines with the lines of some cells in columns of these widths."""
    for parts in zip_longest(*cells, fillvalue=Text()):
        line = Text()
        for part, column, width in zip(parts, columns, widths, strict=True):
            space = " " * (width - part.cell_len)
            line.append(space if column.kind is Kind.NUMBER else "").append_text(part)
            line.append("" if column.kind is Kind.NUMBER else space).append(GAP)
        yield line


def wrapped(text: Cell, width: int, style: str = "") -> Iterator[Text]:
    """Yield the lines of a text; none if it is empty."""
    yield from (Text(line, style) for line in wrap(text, width) if line)
