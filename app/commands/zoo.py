"""``loradex zoo``: list, check, repair and copy zoos."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from loradex.app.commands.options import (
    MILVUS_URL,
    AfterFilter,
    BeforeFilter,
    FamilyFilter,
    FolderFilter,
    FormatFilter,
    FoundByFilter,
    Ids,
    Json,
    RankFilter,
    TagFilter,
    ZooToRead,
    ZooToWrite,
    examples,
)
from loradex.app.commands.output import print_answer, print_message

ModelIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID", help="Ids of models, as `loradex search --ids` and `loradex zoo list --ids` show them."
    ),
]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    epilog=examples("loradex zoo list"),
    help="List, check, repair and copy zoos.",
)


@app.command("list", epilog=examples("loradex zoo list --tag anime --rank 16-"))
def list_models(
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
    """List the models of a zoo."""
    from loradex.app.commands.tables.zoo import models_table
    from loradex.app.models import model_document
    from loradex.app.paths import zoo_to_read
    from loradex.app.search.filters import parse_filter
    from loradex.index import open_zoo

    where = parse_filter(family or (), format or (), tag or (), rank, folder, after, before, found_by or ())
    with open_zoo(zoo_to_read(zoo), read_only=True) as opened:
        models = list(opened.models(where))
        place, space, families = str(opened.folder), opened.space, opened.counts("family")
    document = {
        "zoo": place,
        "space": space,
        "families": families,
        "models": [model_document(model, place) for model in models],
    }
    print_answer(document, models_table(place, space, models, ids), as_json)


@app.command("show", epilog=examples("loradex zoo show c09c39f128ab3b9811f2"))
def show_models(ids: ModelIds, zoo: ZooToRead = None, as_json: Json = False) -> None:
    """Show all facts of some models, and the paths of their files."""
    from loradex.app.commands.tables.zoo import facts_tables
    from loradex.app.models import model_document
    from loradex.app.paths import zoo_to_read
    from loradex.index import open_zoo

    with open_zoo(zoo_to_read(zoo), read_only=True) as opened:
        files, place = opened.files_by_model(ids), str(opened.folder)
        models = [
            model_document(opened.get(id), place) | {"files": [asdict(file) for file in files.get(id, [])]}
            for id in ids
        ]
    print_answer({"zoo": place, "models": models}, facts_tables(models), as_json)


@app.command("verify", epilog=examples("loradex zoo verify --zoo my-zoo"))
def verify(zoo: ZooToRead = None, as_json: Json = False) -> None:
    """Check all rows, checksums, search words and the index engine of a zoo; the exit status is 1 if one is damaged."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.zoo import problems_table
    from loradex.app.paths import zoo_to_read
    from loradex.index import open_zoo

    with open_zoo(zoo_to_read(zoo), read_only=True) as opened, progress_bar("Checking") as progress:
        problems, count = opened.verify(lambda done, total: progress(done, total, "")), len(opened)
        place = str(opened.folder)
    document = {"zoo": place, "models": count, "problems": problems}
    print_answer(document, problems_table(place, count, problems), as_json)
    if problems:
        raise typer.Exit(1)


@app.command("rebuild", epilog=examples("loradex zoo rebuild --engine exact"))
def rebuild(
    zoo: ZooToWrite = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="auto|exact|codes|gpu",
            help="The index engine from now on; auto chooses by the size of the zoo.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Rebuild search words, tags and index engine, and remove damaged models; `loradex index` adds them again."""
    from loradex.app.commands.progress import spinner
    from loradex.app.commands.tables.zoo import removed_table
    from loradex.app.paths import zoo_to_write
    from loradex.index import open_zoo

    with open_zoo(zoo_to_write(zoo)) as opened, spinner("Rebuilding"):
        removed, count = opened.rebuild(engine), len(opened)
        place = str(opened.folder)
    document = {"zoo": place, "models": count, "taken_out": removed}
    print_answer(document, removed_table(place, count, removed), as_json)


@app.command("compact", epilog=examples("loradex zoo compact --zoo my-zoo"))
def compact(zoo: ZooToWrite = None, as_json: Json = False) -> None:
    """Give unused space of a zoo back to the disk."""
    from loradex.app.commands.progress import spinner
    from loradex.app.commands.tables.zoo import counts_table
    from loradex.app.paths import zoo_to_write
    from loradex.index import open_zoo

    folder = zoo_to_write(zoo)
    with open_zoo(folder) as opened, spinner("Compacting"):
        before = folder_bytes(folder)
        opened.compact()
        opened.save_engine()
    after = folder_bytes(folder)
    document = {"zoo": str(folder), "bytes_before": before, "bytes": after}
    print_answer(document, counts_table(str(folder), {"before": before, "now": after}, ("", "bytes")), as_json)


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@app.command("remove", epilog=examples("loradex zoo remove c09c39f128ab3b9811f2"))
def remove(ids: ModelIds, zoo: ZooToWrite = None, as_json: Json = False) -> None:
    """Remove models from a zoo; their files stay, and the next `loradex index` adds them again."""
    from loradex.app.commands.tables.zoo import counts_table
    from loradex.app.paths import zoo_to_write
    from loradex.index import open_zoo

    with open_zoo(zoo_to_write(zoo)) as opened:
        unknown = [id for id in ids if not opened.has(id)]
        removed, place = opened.remove(ids), str(opened.folder)
    document = {"zoo": place, "removed": removed, "unknown": unknown}
    print_answer(document, counts_table(place, {"removed": removed}, ("models", "count")), as_json)
    for id in unknown:
        print_message(f"{place}: expected a model {id!r}, found none; list the zoo's models for their ids")
    if unknown:
        raise typer.Exit(3 if removed else 1)


@app.command("copy", epilog=examples("loradex zoo copy backup/zoo", "loradex zoo copy milvus://localhost:19530/loras"))
def copy(
    target: Annotated[
        str, typer.Argument(metavar="PLACE", help=f"Folder of the copy, or {MILVUS_URL}; it must not hold a zoo yet.")
    ],
    zoo: ZooToRead = None,
    as_json: Json = False,
) -> None:
    """Copy a zoo to another folder, to Milvus or back, even while it is searched or written."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.zoo import counts_table
    from loradex.app.paths import resolve_zoo, zoo_to_read
    from loradex.index import open_zoo
    from loradex.index.copying import copy_zoo

    with open_zoo(zoo_to_read(zoo), read_only=True) as opened, progress_bar("Copying") as progress:
        count = copy_zoo(opened, resolve_zoo(target, make=True), lambda done, total: progress(done, total, ""))
        place = str(opened.folder)
    document = {"zoo": place, "copy": target, "models": count}
    print_answer(document, counts_table(place, {target: count}, ("copy", "models")), as_json)


@app.command("export", epilog=examples("loradex zoo export zoo.parquet"))
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet file to write.")],
    zoo: ZooToRead = None,
    as_json: Json = False,
) -> None:
    """Write all models, vectors and drawings of a zoo to one Parquet file."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.zoo import counts_table
    from loradex.app.paths import zoo_to_read
    from loradex.index import open_zoo
    from loradex.index.parquet import export_zoo

    with open_zoo(zoo_to_read(zoo), read_only=True) as opened, progress_bar("Writing") as progress:
        count, place = export_zoo(opened, file, lambda done, total: progress(done, total, "")), str(opened.folder)
    document = {"zoo": place, "file": str(file), "models": count}
    print_answer(document, counts_table(place, {str(file): count}, ("file", "models")), as_json)


@app.command("import", epilog=examples("loradex zoo import zoo.parquet --zoo another-zoo"))
def import_models(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet file of `loradex zoo export`.")],
    zoo: ZooToWrite = None,
    as_json: Json = False,
) -> None:
    """Add the models of a Parquet file to a zoo; a new zoo is created if there is none."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.zoo import counts_table
    from loradex.app.paths import zoo_to_write
    from loradex.index.parquet import import_zoo

    target = zoo_to_write(zoo)
    with progress_bar("Reading") as progress:
        count = import_zoo(file, target, lambda done, total: progress(done, total, ""))
    document = {"zoo": str(target), "file": str(file), "models": count}
    print_answer(document, counts_table(str(target), {str(file): count}, ("file", "models")), as_json)
