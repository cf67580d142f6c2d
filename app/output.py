"""What every command says and how: options they share, tables or JSON on stdout, complaints on stderr."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

Zoo = Annotated[str | None, typer.Option(help="Folder of the zoo. Default: $LORADEX_ZOO, else your own, else the one that ships ('miniature').")]
Families = Annotated[list[str] | None, typer.Option("--family", help="Only models of this family; may be repeated.")]
Formats = Annotated[list[str] | None, typer.Option("--format", help="Only files of this format; may be repeated.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Only models with this tag or trigger word; may be repeated.")]
Rank = Annotated[str | None, typer.Option(help="Only models of this rank, or range of ranks: 8, 4-16, 32-.")]
Below = Annotated[str | None, typer.Option("--folder", help="Only models with a file below this folder.")]
After = Annotated[str | None, typer.Option(help="Only models added since: 2026-11-24, or 7d ago.")]
Before = Annotated[str | None, typer.Option(help="Only models added before.")]
Known = Annotated[str | None, typer.Option("--found-by", help="Only models that are known by weights, or by metadata alone.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]


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
