"""Texts of documents as JSON can hold them, and without what is nobody's business."""

from collections.abc import Callable, Mapping
from typing import Any, Final

LONGEST_MESSAGE: Final = 1000  # characters


def mapped(document: Any, change: Callable[[str], str]) -> Any:
    """A JSON document with every text in it changed."""
    if isinstance(document, str):
        return change(document)
    if isinstance(document, dict):
        return {change(key): mapped(value, change) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [mapped(value, change) for value in document]
    return document


def readable(text: str) -> str:
    """A text that UTF-8 can write; names of files need not be such."""
    return text.encode("utf-8", "replace").decode()


def renamed(text: str, names: Mapping[str, str]) -> str:
    """A text in which paths are called by other names; the longer path first, as it may hold a shorter one."""
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text


def printable(text: str) -> str:
    """A text on one line, with nothing in it that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(readable(text).split()))


def one_line(message: str) -> str:
    """A printable text of a bounded length."""
    line = printable(message)
    return line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE] + "..."
