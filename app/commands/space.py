"""``loradex space``: which CLIP texts, pictures and models are compared in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from loradex.app.commands.options import (
    Engine,
    Json,
    PartsFolder,
    RayAddress,
    ZooToWrite,
    examples,
)
from loradex.app.commands.output import exit_if_refused, print_answer, print_message
from loradex.app.indexing.reading_engines import EngineName

if TYPE_CHECKING:
    from loradex.retrieval.space.clip_download import Download

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    epilog=examples("loradex space show", "loradex space use ViT-B-32-quickgelu/openai"),
    help="Choose the CLIP in whose space texts, pictures and models are compared.",
)


@app.command(
    "use",
    epilog=examples(
        "loradex space use ViT-B-32-quickgelu/openai",
        "loradex space use hf-hub:timm/vit_base_patch32_clip_224.openai",
        "loradex space use ViT-B-32-quickgelu/clip.safetensors",
        "loradex space use my-clip-folder",
        "loradex space use miniature",
    ),
)
def use(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="ARCHITECTURE/PRETRAINED or ARCHITECTURE/FILE.safetensors of open_clip, hf-hub:OWNER/NAME, a folder with "
            "open_clip_config.json and weights, or miniature for the space that ships.",
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Download without asking.")] = False,
    as_json: Json = False,
) -> None:
    """Make a CLIP's space your own; its weights are downloaded if they are not here, after you agreed to the size."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.space import use_table
    from loradex.app.paths import SHIPPED_NAME, user_encoder
    from loradex.app.space.choice import get_clip, use_clip, use_shipped
    from loradex.retrieval.errors import FetchError

    def confirm(download: Download) -> None:
        what = f"{name}: {download.size / 1e6:,.0f} MB from {download.endpoint}/{download.source.repository} to {download.cache}"
        if yes:
            print_message(f"{what}: downloading")
        elif not sys.stdin.isatty():
            raise FetchError(
                f"{what}: expected your consent, found no terminal to ask in; run `loradex space use {name} --yes`"
            )
        elif not typer.confirm(f"{what}. Download?", err=True):
            raise FetchError(f"{what}: expected your consent, found none; nothing was downloaded or changed")

    folder = user_encoder()
    if name == SHIPPED_NAME:
        answer = use_shipped(folder)
    else:
        files, downloaded = get_clip(name, folder, confirm)
        with progress_bar("Encoding words") as progress:
            answer = use_clip(name, files, folder, downloaded, progress)
    print_answer(answer.document(), use_table(answer), as_json)


@app.command("show", epilog=examples("loradex space show --json"))
def show(zoo: ZooToWrite = None, as_json: Json = False) -> None:
    """Show the space in use, where its files lie, which experts fit it, and whether your zoo is of it."""
    from loradex.app.commands.tables.space import status_table
    from loradex.app.paths import encoder_folders, zoo_to_write
    from loradex.app.space.status import space_status

    status = space_status(encoder_folders(), zoo_to_write(zoo))
    print_answer(status.document(), status_table(status), as_json)


@app.command("reindex", epilog=examples("loradex space reindex", "loradex space reindex --zoo my-zoo"))
def reindex(
    zoo: ZooToWrite = None,
    engine: Engine = EngineName.LOCAL,
    parts: PartsFolder = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Make a zoo of another space again from its files, in the space in use; the old zoo is kept beside it."""
    from loradex.app.bases import Bases
    from loradex.app.commands.progress import progress_bar, words_progress
    from loradex.app.commands.tables.space import reindex_tables
    from loradex.app.indexing.reading_engines import make_reading_engine
    from loradex.app.paths import encoder_folders, zoo_to_write
    from loradex.app.space.reindex import reindex_zoo
    from loradex.app.words import WordsService
    from loradex.retrieval.encoder import Encoder

    target = zoo_to_write(zoo)
    reading_engine = make_reading_engine(engine, f"{target.absolute()} reindexed", parts, ray_address)
    with progress_bar() as progress:
        words = WordsService(Bases.load(), words_progress(progress))
        answer = reindex_zoo(target, Encoder.load(*encoder_folders()), progress, reading_engine, words)
    print_answer(answer.document(), reindex_tables(answer), as_json)
    gone = [
        f"{path}: expected a file of the zoo, found it gone; put it back and run `loradex index` on it"
        for path in answer.missing
    ]
    for name in answer.lost:
        print_message(
            f"{answer.zoo}: model {name!r} is left out, as none of its files could be read; {answer.old_zoo} still has it"
        )
    refused = list(answer.indexed.refused.values()) if answer.indexed else []
    exit_if_refused(gone + refused, len(gone) + (answer.indexed.file_count if answer.indexed else 0))
