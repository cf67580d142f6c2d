"""``loradex expert``: experts that travel from one machine to another in one file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from loradex.app.commands.options import Json, ZooToWrite, examples
from loradex.app.commands.output import print_answer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    epilog=examples(
        "loradex expert list",
        "loradex expert add hf://owner/name",
        "loradex expert export sdxl sdxl-expert.safetensors",
    ),
    help="Share experts: list them, add what others made, write your own into one file.",
)


@app.command("list", epilog=examples("loradex expert list", "loradex expert list --json"))
def list_all(as_json: Json = False) -> None:
    """List the experts of this machine: how each was made, from which base model, and how good it is."""
    from loradex.app.commands.progress import spinner
    from loradex.app.commands.tables.expert import list_table
    from loradex.app.paths import encoder_folders
    from loradex.app.sharing.listing import list_experts

    with spinner("Reading experts"):
        experts = list_experts(encoder_folders())
    print_answer({"experts": [expert.document() for expert in experts]}, list_table(experts), as_json)


@app.command(
    "show", epilog=examples("loradex expert show mini-a", "loradex expert show sdxl-expert.safetensors --json")
)
def show(
    name: Annotated[str, typer.Argument(metavar="TREE|FILE", help="A model tree, or a file that somebody shares.")],
    as_json: Json = False,
) -> None:
    """Show all that is known of one expert; a file is checked, and nothing is added."""
    from loradex.app.commands.progress import spinner
    from loradex.app.commands.tables.expert import show_table
    from loradex.app.paths import encoder_folders
    from loradex.app.sharing.listing import show_expert

    with spinner("Reading the expert"):
        document = show_expert(name, encoder_folders())
    print_answer(document, show_table(document), as_json)


@app.command(
    "add",
    epilog=examples(
        "loradex expert add sdxl-expert.safetensors",
        "loradex expert add hf://owner/name",
        "loradex expert add hf://owner/name@main/sdxl-expert.safetensors --replace",
    ),
)
def add(
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE",
            help="A file, a folder with one, or hf://owner/name on the hub; @revision and /file may follow.",
        ),
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Replace an expert of the same model tree.")] = False,
    zoo: ZooToWrite = None,
    as_json: Json = False,
) -> None:
    """Add an expert that somebody shares; it is refused if it was changed, or does not fit the space in use."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.expert import add_table
    from loradex.app.paths import user_encoder, zoo_to_write
    from loradex.app.sharing.adding import add_expert

    with progress_bar("Fetching") as progress:
        answer = add_expert(place, user_encoder(), zoo_to_write(zoo), replace=replace, progress=progress)
    print_answer(answer.document(), add_table(answer), as_json)


@app.command("remove", epilog=examples("loradex expert remove sdxl --yes"))
def remove(
    tree: Annotated[str, typer.Argument(metavar="TREE", help="The model tree, as `loradex expert list` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Delete an expert of your own; `loradex expert export` keeps a copy. Those that ship stay."""
    from loradex.app.commands.tables.expert import remove_table
    from loradex.app.paths import user_encoder
    from loradex.app.sharing.removing import find_own, remove_expert
    from loradex.retrieval.errors import QueryError

    path = find_own(tree, user_encoder())
    if not yes and not sys.stdin.isatty():
        raise QueryError(
            f"{path}: expected your consent to delete it, found no terminal to ask in; run `loradex expert remove {tree} --yes`"
        )
    if not yes and not typer.confirm(f"Delete {path}?", err=True):
        raise QueryError(f"{path}: expected your consent to delete it, found none; nothing was deleted")
    answer = remove_expert(path)
    print_answer(answer.document(), remove_table(answer), as_json)


@app.command("export", epilog=examples("loradex expert export sdxl sdxl-expert.safetensors"))
def export(
    tree: Annotated[str, typer.Argument(metavar="TREE", help="The model tree, as `loradex expert list` shows it.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write (.safetensors), or a folder.")],
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write an expert with its space, labels and figures into one file that others can add."""
    from loradex.app.commands.progress import spinner
    from loradex.app.commands.tables.expert import export_table
    from loradex.app.paths import encoder_folders
    from loradex.app.sharing.exporting import export_expert

    with spinner("Writing the expert"):
        answer = export_expert(tree, file, encoder_folders(), replace=replace)
    print_answer(answer.document(), export_table(answer), as_json)
