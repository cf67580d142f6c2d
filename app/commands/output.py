"""Output of commands: tables or JSON on stdout, messages on stderr."""

from __future__ import annotations

import json
import logging
import sys
from io import TextIOWrapper
from typing import Any

import typer

from loradex.app.reporting import printable_line


def print_answer(document: dict[str, Any], table: Any, as_json: bool) -> None:
    """Print a JSON document or a table on stdout."""
    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
        return
    from rich.console import Console

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file's name may have characters that the terminal lacks
    Console().print(table, soft_wrap=True)  # tables wrap by themselves


def exit_if_refused(reasons: list[str], files: int) -> None:
    """Print the reasons for refused files on stderr; exit with 1 if all ``files`` were refused, with 3 if some were."""
    for reason in reasons:
        print_message(reason)
    if reasons:
        raise typer.Exit(1 if len(reasons) == files else 3)


class LogToMessages(logging.Handler):
    """Prints what Loradex logs, each record as a message."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of a record."""
        print_message(record.getMessage())


def print_message(message: str) -> None:
    """Print one line on stderr; control characters become question marks."""
    sys.stderr.write(f"loradex: {printable_line(message)}\n")
