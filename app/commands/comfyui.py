"""``loradex comfyui``: puts the node pack into a ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loradex.app.commands.options import Json, examples
from loradex.app.commands.output import print_answer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    epilog=examples("loradex comfyui install ~/ComfyUI"),
    help="Search LoRAs inside ComfyUI.",
)


@app.callback()
def commands() -> None:
    """Keep ``install`` a command of its own, as others may join it."""


@app.command(
    epilog=examples("loradex comfyui install ~/ComfyUI", "loradex comfyui install ~/ComfyUI --copy"),
)
def install(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder of ComfyUI, with custom_nodes in it.")],
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the files, as for a ComfyUI in a container; else they are linked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put Loradex's nodes and sidebar tab into ComfyUI; the same command updates them."""
    from loradex.app.comfyui import install_pack
    from loradex.app.commands.tables.comfyui import installed_table

    installed = install_pack(path, copy)
    print_answer(installed.document(), installed_table(installed), as_json)
