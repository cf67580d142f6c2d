"""What every command says and how: tables or JSON on stdout, complaints on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer


def show(document: dict[str, Any], table: Any, as_json: bool) -> None:
    """Print a document for machines or a table for people on stdout."""
    from rich.console import Console

    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()
    else:
        Console().print(table)


def leave_if_refused(reasons: list[str], files: int) -> None:
    """Name each refused file on stderr; exit with 1 when all were refused, with 3 when some were."""
    for reason in reasons:
        complain(reason)
    if reasons:
        raise typer.Exit(1 if len(reasons) == files else 3)


def complain(message: str) -> None:
    """One line on stderr, with nothing in it that a terminal would obey."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))
    sys.stderr.write(f"loradex: {line}\n")
