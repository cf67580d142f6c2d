"""Texts that are safe to send: valid UTF-8, printable, bounded, and without paths of the server."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from loradex.app.reporting import printable_line

MAX_MESSAGE_LENGTH: Final = 1000  # characters


def map_strings(document: Any, function: Callable[[str], str]) -> Any:
    """Apply a function to every string of a JSON document, keys included."""
    if isinstance(document, str):
        return function(document)
    if isinstance(document, dict):
        return {function(key): map_strings(value, function) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [map_strings(value, function) for value in document]
    return document


def replace_paths(text: str, names: Mapping[str, str]) -> str:
    """Replace each path in a text by its name; longer paths first, as they may contain shorter ones."""
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text


def bounded_line(text: str) -> str:
    """Return a text as one printable line, cut to the length of a message."""
    line = printable_line(text)
    return line if len(line) <= MAX_MESSAGE_LENGTH else line[:MAX_MESSAGE_LENGTH] + "..."
