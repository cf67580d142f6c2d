"""Texts in the cells of tables: without control characters, wrapped between words, folders shortened in the middle."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rich.cells import cell_len, chop_cells

from loradex.app.reporting import readable

ELLIPSIS = "…"
MAX_ITEMS = 30  # of a list in a cell
BREAKS = re.compile("(?<=/)"), re.compile("(?<=[-_.])")  # in words that are longer than a line


def plain(value: object) -> str:
    """A text on one line; control characters become question marks, so that nothing in it controls the terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in readable(str(value)))


def wrap(value: str | Sequence[str], width: int) -> list[str]:
    """Break a text between words, or a list between its items, into lines of at most ``width`` terminal columns.

    What is longer than a line by itself is broken after a slash, else after a hyphen, underscore or dot, else anywhere.
    """
    chunks = value.split(" ") if isinstance(value, str) else [f"{item}," for item in value[:-1]] + list(value[-1:])
    lines = [""]
    for piece in (piece for chunk in chunks for piece in pieces(chunk, width)):
        longer = f"{lines[-1]} {piece}" if lines[-1] else piece
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(piece)
    return lines


def pieces(chunk: str, width: int, breaks: Sequence[re.Pattern[str]] = BREAKS) -> Iterator[str]:
    """Break a word or an item into pieces of at most ``width`` columns, as few as possible."""
    if cell_len(chunk) <= width:
        yield chunk
    elif " " in chunk:
        yield from wrap(chunk, width)
    elif not breaks:
        yield from chop_cells(chunk, width)
    else:
        piece = ""
        for part in breaks[0].split(chunk):
            if piece and cell_len(piece + part) > width:
                yield piece
                piece = ""
            *full, rest = pieces(part, width, breaks[1:])
            yield from full
            piece += rest
        yield piece


def split_path(path: str) -> tuple[str, str]:
    """The folder of a file, with forward slashes, and the file's name."""
    folder, slash, name = path.replace(os.sep, "/").rpartition("/")
    return folder or slash, name


def relative_folders(folders: Sequence[str | None]) -> tuple[str, list[str]]:
    """The common folder of some folders, and each relative to it; both are empty texts where there is none."""
    split = [folder.split("/") for folder in folders if folder is not None]
    common = list(os.path.commonprefix(split)) if split else []
    if not any(common):
        return "", [folder or "" for folder in folders]
    below = ["" if folder is None else "/".join(folder.split("/")[len(common) :]) or "." for folder in folders]
    return "/".join(common), below


def shorten_folder(folder: str, width: int) -> str:
    """A folder in at most ``width`` columns: names in its middle are left out first, then its beginning."""
    if cell_len(folder) <= width:
        return folder
    first, *rest = folder.split("/")
    for start in range(1, len(rest)):
        shorter = "/".join([first, ELLIPSIS, *rest[start:]])
        if cell_len(shorter) <= width:
            return shorter
    last = f"{ELLIPSIS}/{rest[-1]}" if rest else folder
    return last if cell_len(last) <= width else ELLIPSIS + folder[len(folder) - max(width - 1, 0) :]


def listed(values: Sequence[object] | None, limit: int = MAX_ITEMS) -> list[str]:
    """The first items of a list as texts, then dots if there are more."""
    items = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in (values or ())[:limit]]
    return [*items, "..."] if len(values or ()) > limit else items


def fact(value: object) -> str | list[str]:
    """A value of a JSON document as a cell."""
    if isinstance(value, list):
        return listed(value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def date(seconds: int | None) -> str:
    """A day of the calendar in UTC, or an empty text."""
    try:
        return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return ""
