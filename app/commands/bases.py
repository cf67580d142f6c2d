"""``loradex base``: names base models once, so that commands find them by family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loradex.app.commands.options import Json, examples
from loradex.app.commands.output import exit_if_refused, print_answer, print_message

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    epilog=examples("loradex base add models/sdxl", "loradex base add --find", "loradex base list"),
    help="Name the base models on this disk, which other commands then find by family.",
)


@app.command(
    "add",
    epilog=examples(
        "loradex base add ~/ComfyUI/models/checkpoints/v1-5-pruned-emaonly.safetensors",
        "loradex base add models/sdxl",
        "loradex base add --find",
        "loradex base add --find /mnt/models",
    ),
)
def add(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH",
            help="Folders of diffusers, or checkpoints in one file (.safetensors); with --find, further folders to look in.",
        ),
    ] = None,
    find: Annotated[
        bool,
        typer.Option(
            "--find",
            help="Look for base models in the folders of ComfyUI, A1111, Forge, StabilityMatrix and the hub's cache.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Name base models; families and parts are told by their headers. The last one added of a family is used."""
    if not find and not paths:
        raise typer.BadParameter("expected a base model or --find, found neither; name one", param_hint="PATH")
    if find:
        add_what_is_found(paths or [], as_json)
        return
    from loradex.app.bases.changes import add_bases
    from loradex.app.bases.registry import registry_file
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.bases import added_table
    from loradex.app.reporting import refusal_list

    with progress_bar() as progress:
        added, refused = add_bases(paths or [], progress)
    document = {
        "registry": str(registry_file()),
        "added": [entry.document() for entry in added],
        "refused": refusal_list(refused),
    }
    print_answer(document, added_table(added), as_json)
    exit_if_refused(list(refused.values()), len(added) + len(refused))


def add_what_is_found(places: list[Path], as_json: bool) -> None:
    """Find base models, add those that are new, and print them."""
    from loradex.app.bases.changes import add_found
    from loradex.app.bases.registry import registry_file
    from loradex.app.bases.search import find_candidates, read_candidates
    from loradex.app.commands.progress import progress_bar, spinner
    from loradex.app.commands.tables.bases import found_table
    from loradex.app.reporting import refusal_list

    with spinner("Looking for base models"):
        candidates = find_candidates(places)
    with progress_bar() as progress:
        found = read_candidates(candidates, progress)
    added = add_found(found.bases)
    document = {
        "registry": str(registry_file()),
        "added": [entry.document() for entry in added],
        "known": [str(base.path) for base in found.bases if str(base.path) not in {entry.path for entry in added}],
        "copies": found.copies,
        "skipped": refusal_list(found.skipped),
        "complete": found.complete,
    }
    print_answer(document, found_table(found, added), as_json)
    if not found.bases:
        print_message(
            "base models: expected some in the folders of other programs, found none; name a folder: `loradex base add --find FOLDER`"
        )
        raise typer.Exit(1)


@app.command("list", epilog=examples("loradex base list", "loradex base list --json"))
def list_bases(as_json: Json = False) -> None:
    """List the base models at hand, which of each family is used, and which have moved or changed."""
    from loradex.app.bases.listing import list_all
    from loradex.app.bases.registry import registry_file
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.bases import bases_table

    with progress_bar() as progress:
        bases = list_all(progress)
    document = {"registry": str(registry_file()), "bases": [base.document() for base in bases]}
    print_answer(document, bases_table(bases), as_json)


@app.command(
    "remove",
    epilog=examples("loradex base remove sdxl", "loradex base remove models/sdxl"),
)
def remove(
    names: Annotated[
        list[str], typer.Argument(metavar="PATH|FAMILY", help="Paths as `loradex base list` shows them, or families.")
    ],
    as_json: Json = False,
) -> None:
    """Remove base models from the list, one by its path or all of a family; their files stay."""
    from loradex.app.bases.changes import remove_bases
    from loradex.app.bases.registry import registry_file
    from loradex.app.commands.tables.bases import removed_table

    removed, unknown = remove_bases(names)
    document = {
        "registry": str(registry_file()),
        "removed": [entry.path for entry in removed],
        "unknown": unknown,
    }
    print_answer(document, removed_table(removed), as_json)
    for name in unknown:
        print_message(
            f"{name}: expected a base model that was added, or its family, found none; see `loradex base list`"
        )
    if unknown:
        raise typer.Exit(3 if removed else 1)
