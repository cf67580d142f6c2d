"""The options that commands share, and how each command's help ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loradex.app.indexing.reading_engines import EngineName

MILVUS = "milvus://host:19530/name"
DEFAULT_ZOO = "Default: $LORADEX_ZOO, else your own"
WHEN = "2026-11-24, or 7d for seven days ago (also h and w)."


Zoo = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE", help=f"Folder of the zoo, miniature, or {MILVUS}. {DEFAULT_ZOO}, else the miniature."
    ),
]
ZooToWrite = Annotated[
    str | None,
    typer.Option("--zoo", metavar="PLACE", help=f"Folder of the zoo to write to, or {MILVUS}. {DEFAULT_ZOO}."),
]
Families = Annotated[
    list[str] | None, typer.Option("--family", metavar="NAME", help="Only models of this family; may be repeated.")
]
Formats = Annotated[
    list[str] | None, typer.Option("--format", metavar="NAME", help="Only models in this format; may be repeated.")
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="WORD", help="Only models with this tag or trigger word; may be repeated."),
]
Rank = Annotated[
    str | None,
    typer.Option(metavar="RANGE", help="Only models of this rank, or of a range of ranks: 8, 4-16, -8, 32-."),
]
Below = Annotated[
    str | None, typer.Option("--folder", metavar="FOLDER", help="Only models with a file below this folder.")
]
After = Annotated[str | None, typer.Option(metavar="TIME", help=f"Only models added since then: {WHEN}")]
Before = Annotated[str | None, typer.Option(metavar="TIME", help=f"Only models added before then: {WHEN}")]
Known = Annotated[
    str | None,
    typer.Option(
        "--found-by", metavar="weights|metadata", help="Only models known by their weights, or by metadata alone."
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Text file with one label a line. Default: the concepts of the miniature."),
]
LabelTable = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="CSV with the columns file and label, and if wanted split."),
]
Bases = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        metavar="FAMILY=FOLDER",
        help="A base model to draw with, saved by diffusers; may be repeated. Also: $LORADEX_BASES.",
    ),
]
Engine = Annotated[
    EngineName,
    typer.Option(help="What reads the files: threads of this machine, or a Ray cluster (the extra ray of pip)."),
]
Parts = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Where Ray's finished work is kept until it is in the zoo. Default: your cache."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A running Ray cluster. Default: $RAY_ADDRESS, else one of this machine."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
Count = Annotated[int, typer.Option("-k", "--count", metavar="NUMBER", min=1, max=1000, help="How many answers.")]
Folders = Annotated[
    list[Path] | None,
    typer.Option(
        "--folder",
        metavar="FOLDER",
        help="Compare with the LoRAs below this folder instead of the zoo; may be repeated.",
    ),
]


def examples(*lines: str) -> str:
    """The end of a command's help: examples, each a paragraph, so that each is a line of its own."""
    return "\n\n".join(("Example:" if len(lines) == 1 else "Examples:", *lines))
