"""The ``loradex`` command: one Typer app of the commands in the other modules.

Heavy libraries are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import logging
import sys

import typer

from loradex.app.commands import (
    bases,
    comfyui,
    draw,
    expert,
    experts,
    files,
    find,
    grow,
    library,
    serve,
    space,
    words,
    zoo,
)
from loradex.app.commands.options import EXPERTS_PANEL, ZOO_PANEL, examples
from loradex.app.commands.output import LogToMessages, print_message

HELP = """Find fine-tuned image models by what their weights say.

A zoo is a folder of indexed models; one ships, the miniature. An expert reads the weights of one family of models.

`loradex COMMAND --help` shows options and examples. Exit status: 0 done, 1 failed, 2 wrong usage, 3 done in part."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=HELP,
    epilog=examples(
        'loradex search "a slice of pizza" --zoo miniature', "loradex index ~/ComfyUI/models/loras", "loradex serve"
    ),
)
for commands in find, files, words, draw, library, serve:
    app.add_typer(commands.app)
app.add_typer(zoo.app, name="zoo", rich_help_panel=ZOO_PANEL)
app.add_typer(bases.app, name="base", rich_help_panel=ZOO_PANEL)
app.add_typer(space.app, name="space", rich_help_panel=ZOO_PANEL)
app.add_typer(comfyui.app, name="comfyui", rich_help_panel=ZOO_PANEL)
app.add_typer(experts.app)
app.add_typer(grow.app)
app.add_typer(expert.app, name="expert", rich_help_panel=EXPERTS_PANEL)


def main() -> None:
    """Run the command line; an error of Loradex or of the system is printed in one line, with exit status 1."""
    log = logging.getLogger("loradex")
    log.addHandler(LogToMessages())
    log.setLevel(logging.INFO)
    try:
        app()
    except Exception as error:
        from loradex.index.errors import ZooError
        from loradex.retrieval.errors import LoradexError

        if not isinstance(error, LoradexError | ZooError | OSError):
            raise
        print_message(str(error))
        sys.exit(1)
