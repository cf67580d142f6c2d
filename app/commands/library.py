"""``loradex index``."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from loradex.app.commands.options import (
    ZOO_PANEL,
    Engine,
    Json,
    PartsFolder,
    RayAddress,
    WordsBases,
    ZooToWrite,
    examples,
)
from loradex.app.commands.output import exit_if_refused, print_answer, print_message
from loradex.app.indexing.reading_engines import EngineName

app = typer.Typer()


@app.command(
    epilog=examples(
        "loradex index ~/ComfyUI/models/loras --zoo my-zoo",
        "loradex index hf://owner/name@revision",
        "loradex index s3://bucket/loras --engine ray",
    ),
    rich_help_panel=ZOO_PANEL,
)
def index(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="PLACE",
            help="Folders that hold LoRAs, at any depth: local, hf://owner/name (also @revision), or of a store as s3://bucket/folder.",
        ),
    ],
    zoo: ZooToWrite = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Forget files that no longer exist, and models without any file left.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Keep running and index files as they change, until Ctrl+C; --json prints a document each time.",
        ),
    ] = False,
    engine: Engine = EngineName.LOCAL,
    parts: PartsFolder = None,
    ray_address: RayAddress = None,
    base: WordsBases = None,
    as_json: Json = False,
) -> None:
    """Add LoRAs to a zoo; unchanged files are skipped, and a run that was stopped is resumed."""
    from loradex.app.bases import Bases
    from loradex.app.commands.progress import progress_bar, words_progress
    from loradex.app.commands.tables.library import index_table
    from loradex.app.indexing.ingest import index_places
    from loradex.app.indexing.reading_engines import make_reading_engine
    from loradex.app.paths import encoder_folders, zoo_to_write
    from loradex.app.words import WordsService
    from loradex.retrieval.encoder import Encoder

    words = WordsService(Bases.load(base or ()))
    target, encoder = zoo_to_write(zoo), Encoder.load(*encoder_folders())
    reading_engine = make_reading_engine(engine, str(target.absolute()), parts, ray_address)
    with progress_bar() as progress:
        words.progress = words_progress(progress)
        answer = index_places(places, target, encoder, progress, prune=prune, engine=reading_engine, words=words)
    print_answer(answer.document(), index_table(answer), as_json)
    if watch:
        from loradex.app.indexing.watch import index_on_changes, local_places

        print_message(f"watching {', '.join(places)} (Ctrl+C ends it)")
        with suppress(KeyboardInterrupt):
            for answer in index_on_changes(
                local_places(places),
                lambda: index_places(places, target, encoder, prune=prune, engine=reading_engine, words=words),
            ):
                print_answer(answer.document(), index_table(answer), as_json)
                for reason in answer.refused.values():
                    print_message(reason)
        return
    exit_if_refused(list(answer.refused.values()), answer.file_count)
