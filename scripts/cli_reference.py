"""Writes docs/cli.md, every command and option: ``python -m scripts.cli_reference``."""

from pathlib import Path
from typing import Final

import typer.main
from typer import Context
from typer.cli import get_docs_for_click

from app.cli import app

REFERENCE: Final = Path(__file__).parents[1] / "docs" / "cli.md"


def described() -> str:
    """The document."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=Context(command, info_name="loradex"), name="loradex", title="The command line")
    return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


if __name__ == "__main__":
    REFERENCE.write_text(described(), "utf-8")
