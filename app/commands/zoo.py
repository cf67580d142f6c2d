"""``loradex zoo``: looking at a zoo, and looking after it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from loradex.app.commands.options import (
    MILVUS,
    After,
    Before,
    Below,
    Families,
    Formats,
    Json,
    Known,
    Rank,
    Tags,
    Zoo,
    ZooToWrite,
    examples,
)
from loradex.app.commands.output import complain, show

zoo_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    epilog=examples("loradex zoo list"),
    help="Look at a zoo, check it, mend it, copy it.",
)

Ids = Annotated[
    list[str], typer.Argument(metavar="ID", help="Ids of models, as `loradex search` and `loradex zoo list` show them.")
]


@zoo_app.command("list", epilog=examples("loradex zoo list --tag anime --rank 16-"))
def list_models(
    family: Families = None,
    format: Formats = None,
    tag: Tags = None,
    rank: Rank = None,
    folder: Below = None,
    after: After = None,
    before: Before = None,
    found_by: Known = None,
    zoo: Zoo = None,
    as_json: Json = False,
) -> None:
    """List the models of a zoo."""
    from loradex.app.commands.tables import models_table
    from loradex.app.models import described
    from loradex.app.paths import zoo_to_read
    from loradex.app.search.filters import filter_of
    from loradex.index import open_zoo

    where = filter_of(family or (), format or (), tag or (), rank, folder, after, before, found_by)
    with open_zoo(zoo_to_read(zoo), read_only=True) as opened:
        models = list(opened.models(where))
        place, space, kinds = str(opened.folder), opened.space, opened.counts("family")
    document = {
        "zoo": place,
        "space": space,
        "families": kinds,
        "models": [described(model, place) for model in models],
    }
    show(document, models_table(place, space, models), as_json)


@zoo_app.command("show", epilog=examples("loradex zoo show c09c39f128ab3b9811f2"))
def show_models(ids: Ids, zoo: Zoo = None, as_json: Json = False) -> None:
    """Show all that is known of some models, and where their files lie."""
    from loradex.app.commands.tables import model_tables
    from loradex.app.models import described
    from loradex.app.paths import zoo_to_read
    from loradex.index import open_zoo

    with open_zoo(zoo_to_read(zoo), read_only=True) as opened:
        files, place = opened.files_of(ids), str(opened.folder)
        found = [
            described(opened.get(id), place) | {"files": [asdict(file) for file in files.get(id, [])]} for id in ids
        ]
    show({"zoo": place, "models": found}, model_tables(found), as_json)


@zoo_app.command("verify", epilog=examples("loradex zoo verify --zoo my-zoo"))
def verify(zoo: Zoo = None, as_json: Json = False) -> None:
    """Check every row, checksum, word and engine of a zoo; the exit status is 1 if one is not as it was written."""
    from loradex.app.commands.tables import progress_bar, table_of
    from loradex.app.paths import zoo_to_read
    from loradex.index import open_zoo

    with open_zoo(zoo_to_read(zoo), read_only=True) as opened, progress_bar("Checking") as progress:
        problems, count = opened.verify(lambda done, total: progress(done, total, "")), len(opened)
        place = str(opened.folder)
    said = "sound" if not problems else f"{len(problems)} problems; `loradex zoo rebuild` mends what can be made anew"
    show(
        {"zoo": place, "models": count, "problems": problems},
        table_of(("problem",), [(each,) for each in problems], f"{place}: {count} models, {said}"),
        as_json,
    )
    if problems:
        raise typer.Exit(1)


@zoo_app.command("rebuild", epilog=examples("loradex zoo rebuild --engine exact"))
def rebuild(
    zoo: ZooToWrite = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="auto|exact|codes|gpu",
            help="The kind of search engine from now on; auto chooses by the size of the zoo.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make words, tags and engine anew, and take out damaged models, whose files the next `loradex index` reads again."""
    from loradex.app.commands.tables import table_of, working
    from loradex.app.paths import zoo_to_write
    from loradex.index import open_zoo

    with open_zoo(zoo_to_write(zoo)) as opened, working("Rebuilding"):
        lost, count = opened.rebuild(engine), len(opened)
        place = str(opened.folder)
    table = table_of(("taken out, as it was damaged",), [(id,) for id in lost], f"{place}: {count} models")
    show({"zoo": place, "models": count, "taken_out": lost}, table, as_json)


@zoo_app.command("compact", epilog=examples("loradex zoo compact --zoo my-zoo"))
def compact(zoo: ZooToWrite = None, as_json: Json = False) -> None:
    """Give unused space of a zoo back to the disk."""
    from loradex.app.commands.tables import table_of, working
    from loradex.app.paths import zoo_to_write
    from loradex.index import open_zoo

    folder = zoo_to_write(zoo)
    with open_zoo(folder) as opened, working("Compacting"):
        before = size_of(folder)
        opened.compact()
        opened.save_engine()
    document = {"zoo": str(folder), "bytes_before": before, "bytes": size_of(folder)}
    show(
        document,
        table_of(("", "bytes"), [("before", f"{before:,}"), ("now", f"{document['bytes']:,}")], str(folder)),
        as_json,
    )


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@zoo_app.command("remove", epilog=examples("loradex zoo remove c09c39f128ab3b9811f2"))
def remove(ids: Ids, zoo: ZooToWrite = None, as_json: Json = False) -> None:
    """Take models out of a zoo; their files stay, and the next `loradex index` adds them again."""
    from loradex.app.commands.tables import table_of
    from loradex.app.paths import zoo_to_write
    from loradex.index import open_zoo

    with open_zoo(zoo_to_write(zoo)) as opened:
        unknown = [id for id in ids if not opened.has(id)]
        removed, place = opened.remove(ids), str(opened.folder)
    show({"zoo": place, "removed": removed, "unknown": unknown}, table_of(("removed",), [(removed,)], place), as_json)
    for id in unknown:
        complain(f"{place}: expected a model {id!r}, found none; list the zoo's models for their ids")
    if unknown:
        raise typer.Exit(3 if removed else 1)


@zoo_app.command(
    "copy", epilog=examples("loradex zoo copy backup/zoo", "loradex zoo copy milvus://localhost:19530/loras")
)
def copy(
    target: Annotated[
        str, typer.Argument(metavar="PLACE", help=f"Folder of the copy, or {MILVUS}; it must not hold a zoo yet.")
    ],
    zoo: Zoo = None,
    as_json: Json = False,
) -> None:
    """Copy a zoo, even while it is searched or written, to another folder, to Milvus or back."""
    from loradex.app.commands.tables import progress_bar, table_of
    from loradex.app.paths import place_of, zoo_to_read
    from loradex.index import open_zoo
    from loradex.index.copying import copy_zoo

    with open_zoo(zoo_to_read(zoo), read_only=True) as opened, progress_bar("Copying") as progress:
        count = copy_zoo(opened, place_of(target, make=True), lambda done, total: progress(done, total, ""))
        place = str(opened.folder)
    show(
        {"zoo": place, "copy": target, "models": count}, table_of(("copy", "models"), [(target, count)], place), as_json
    )


@zoo_app.command("export", epilog=examples("loradex zoo export zoo.parquet"))
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet file to write.")],
    zoo: Zoo = None,
    as_json: Json = False,
) -> None:
    """Write all models, vectors and drawings of a zoo to one Parquet file."""
    from loradex.app.commands.tables import progress_bar, table_of
    from loradex.app.paths import zoo_to_read
    from loradex.index import open_zoo
    from loradex.index.parquet import export_zoo

    with open_zoo(zoo_to_read(zoo), read_only=True) as opened, progress_bar("Writing") as progress:
        count, place = export_zoo(opened, file, lambda done, total: progress(done, total, "")), str(opened.folder)
    show(
        {"zoo": place, "file": str(file), "models": count},
        table_of(("file", "models"), [(file, count)], place),
        as_json,
    )


@zoo_app.command("import", epilog=examples("loradex zoo import zoo.parquet --zoo another-zoo"))
def import_models(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet file of `loradex zoo export`.")],
    zoo: ZooToWrite = None,
    as_json: Json = False,
) -> None:
    """Add the models of a Parquet file to a zoo, which is made if there is none."""
    from loradex.app.commands.tables import progress_bar, table_of
    from loradex.app.paths import zoo_to_write
    from loradex.index.parquet import import_zoo

    target = zoo_to_write(zoo)
    with progress_bar("Reading") as progress:
        count = import_zoo(file, target, lambda done, total: progress(done, total, ""))
    show(
        {"zoo": str(target), "file": str(file), "models": count},
        table_of(("file", "models"), [(file, count)], str(target)),
        as_json,
    )
