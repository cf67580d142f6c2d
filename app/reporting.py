"""What all commands that read files report: their progress, and the files that they refused."""

import re
from collections.abc import Callable
from typing import Final

ProgressCallback = Callable[[int, int, str], None]  # called with: files done, files in all, name of the file
BYTE: Final = re.compile("[\udc80-\udcff]")  # that is no UTF-8, as Python reads names of files (PEP 383)


def refusal_list(refused: dict[str, str]) -> list[dict[str, str]]:
    """Return refused files and the reasons (by file) as a JSON document."""
    return [{"file": file, "reason": reason} for file, reason in refused.items()]


def readable(text: str) -> str:
    r"""A text with the names of files as it can be shown and sent: bytes that are no UTF-8 become ``\xe9``.

    Names of files are bytes on Linux; Python gives those that are no UTF-8 as lone surrogates, which no terminal or
    server sends.
    """
    if text.isascii():
        return text
    escaped = BYTE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)
    return escaped.encode(errors="backslashreplace").decode()


def printable_line(text: str) -> str:
    """Return a text as one line without control characters, such as the escape sequences of terminals."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(readable(text).split()))


def pluralize(count: int, noun: str) -> str:
    """A count with its noun: ``1 file``, ``2 files``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
