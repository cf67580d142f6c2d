"""``loradex search``, ``similar`` and ``duplicates``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loradex.app.commands.options import (
    FIND_PANEL,
    AfterFilter,
    BeforeFilter,
    Count,
    FamilyFilter,
    FolderFilter,
    FoldersToCompare,
    FormatFilter,
    FoundByFilter,
    Ids,
    Json,
    RankFilter,
    TagFilter,
    ZooToRead,
    examples,
)
from loradex.app.commands.output import exit_if_refused, print_answer

if TYPE_CHECKING:
    from loradex.app.search.lookalikes import Library

app = typer.Typer()


@app.command(
    epilog=examples(
        'loradex search "a slice of pizza" -k 5',
        "loradex search dog --minus puppy --rank 8-32",
        "loradex search --like my_lora.safetensors",
    ),
    rich_help_panel=FIND_PANEL,
)
def search(
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="What the model should draw; several are added up, dog^0.5 counts half."),
    ] = None,
    minus: Annotated[
        list[str] | None, typer.Option("--minus", metavar="TEXT", help="What it should not draw; may be repeated.")
    ] = None,
    picture: Annotated[
        list[str] | None,
        typer.Option("--picture", metavar="FILE", help="A picture of what it should draw; may be repeated."),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like", metavar="MODEL", help="A model, by id or file, that it should be like; may be repeated."
        ),
    ] = None,
    k: Count = 10,
    page: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=10_000, help="Which page of --count answers.")] = 1,
    family: FamilyFilter = None,
    format: FormatFilter = None,
    tag: TagFilter = None,
    rank: RankFilter = None,
    folder: FolderFilter = None,
    after: AfterFilter = None,
    before: BeforeFilter = None,
    found_by: FoundByFilter = None,
    zoo: ZooToRead = None,
    ids: Ids = False,
    as_json: Json = False,
) -> None:
    """Find models by texts, pictures and other models."""
    if not (texts or picture or like):
        raise typer.BadParameter(
            "expected a text, --picture or --like, found none; say what the model should draw", param_hint="TEXT"
        )
    from loradex.app.commands.progress import spinner
    from loradex.app.commands.tables.find import hits_table

    with spinner("Loading the encoder"):
        from loradex.app.paths import zoo_to_read
        from loradex.app.search.filters import parse_filter
        from loradex.app.search.query import PartKind, Query, QueryPart
        from loradex.app.search.service import Loradex
        from loradex.retrieval.lora.regular_file import is_regular_file

        where = parse_filter(family or (), format or (), tag or (), rank, folder, after, before, found_by or ())
        files = [text for text in like or () if is_regular_file(Path(QueryPart.parse(PartKind.FILE, text).value))]
        models = [text for text in like or () if text not in files]
        query = Query.from_parts(texts or (), minus or (), picture or (), models, files)
        answer = Loradex(zoo_to_read(zoo)).search(query, k, offset=k * (page - 1), where=where)
    print_answer(answer.document(), hits_table(answer, ids), as_json)


@app.command(
    epilog=examples("loradex similar my_lora.safetensors --folder ~/ComfyUI/models/loras"), rich_help_panel=FIND_PANEL
)
def similar(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A LoRA file (.safetensors).")],
    k: Count = 10,
    folder: FoldersToCompare = None,
    zoo: ZooToRead = None,
    as_json: Json = False,
) -> None:
    """Find copies, re-saves, merges and other versions of a LoRA of any family."""
    from loradex.app.commands.tables.find import similar_table

    answer = load_library(folder, zoo).similar(file, k)
    print_answer(answer.document(), similar_table(answer), as_json)
    exit_if_refused(list(answer.refused.values()), answer.compared + len(answer.refused))


@app.command(epilog=examples("loradex duplicates ~/ComfyUI/models/loras"), rich_help_panel=FIND_PANEL)
def duplicates(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Folders that hold LoRAs, at any depth. Default: the zoo."),
    ] = None,
    zoo: ZooToRead = None,
    as_json: Json = False,
) -> None:
    """List LoRAs that hold the same update, were merged, or are versions of one another."""
    from loradex.app.commands.tables.find import duplicates_table

    answer = load_library(folders, zoo).duplicates()
    print_answer(answer.document(), duplicates_table(answer), as_json)
    exit_if_refused(list(answer.refused.values()), answer.compared + len(answer.refused))


def load_library(folders: list[Path] | None, zoo: str | None) -> Library:
    """Read the fingerprints of the LoRAs below some folders, or of a zoo."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.paths import zoo_to_read
    from loradex.app.search.lookalikes import Library

    with progress_bar() as progress:
        return Library.from_folders(folders, progress) if folders else Library.from_zoo(zoo_to_read(zoo), progress)
