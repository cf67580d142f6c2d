"""Options that several commands share, the panels of ``--help``, and the examples below a command's help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loradex.app.indexing.reading_engines import EngineName

FIND_PANEL = "Find models"
FILES_PANEL = "Look at LoRA files"
ZOO_PANEL = "Keep and serve a zoo"
EXPERTS_PANEL = "Train and measure experts"
MILVUS_URL = "milvus://host:19530/name"
DEFAULT_ZOO = "Default: $LORADEX_ZOO, else your own"
TIMES = "2026-11-24, or 7d for seven days ago (also h and w)."

ZooToRead = Annotated[
    str | None,
    typer.Option(
        "--zoo",
        metavar="PLACE",
        help=f"Folder of the zoo, miniature, or {MILVUS_URL}. {DEFAULT_ZOO}, else the miniature.",
    ),
]
ZooToWrite = Annotated[
    str | None,
    typer.Option("--zoo", metavar="PLACE", help=f"Folder of the zoo to write to, or {MILVUS_URL}. {DEFAULT_ZOO}."),
]
FamilyFilter = Annotated[
    list[str] | None, typer.Option("--family", metavar="NAME", help="Only models of this family; may be repeated.")
]
FormatFilter = Annotated[
    list[str] | None, typer.Option("--format", metavar="NAME", help="Only models in this format; may be repeated.")
]
TagFilter = Annotated[
    list[str] | None,
    typer.Option("--tag", metavar="WORD", help="Only models with this tag or trigger word; may be repeated."),
]
RankFilter = Annotated[
    str | None,
    typer.Option("--rank", metavar="RANGE", help="Only models of this rank or range of ranks: 8, 4-16, -8, 32-."),
]
FolderFilter = Annotated[
    str | None, typer.Option("--folder", metavar="FOLDER", help="Only models with a file below this folder.")
]
AfterFilter = Annotated[
    str | None, typer.Option("--after", metavar="TIME", help=f"Only models added since then: {TIMES}")
]
BeforeFilter = Annotated[
    str | None, typer.Option("--before", metavar="TIME", help=f"Only models added before then: {TIMES}")
]
FoundByFilter = Annotated[
    list[str] | None,
    typer.Option(
        "--found-by",
        metavar="picture|words|preview|metadata",
        help="Only models known by what they draw, by words in their weights, by their preview, or by name and tags alone; "
        "may be repeated. weights: picture and words.",
    ),
]
LabelFile = Annotated[
    Path | None,
    typer.Option(
        "--labels", metavar="FILE", help="Text file with one label per line. Default: the concepts of the miniature."
    ),
]
LabelCsv = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="CSV file with the columns file, label and, optionally, split."),
]
BaseModelFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        metavar="FAMILY=PATH",
        help="A base model to draw with: a folder of diffusers or a checkpoint in one file; may be repeated. "
        "Also: `loradex base add`, $LORADEX_BASES.",
    ),
]
WordsBases = Annotated[
    list[str] | None,
    typer.Option(
        "--base",
        metavar="FAMILY=PATH",
        help="A base model whose text encoder reads words: a folder of diffusers or a checkpoint in one file; may be repeated. "
        "Also: `loradex base add`, $LORADEX_BASES.",
    ),
]
LikeFolder = Annotated[
    Path | None,
    typer.Option(
        "--like",
        metavar="FOLDER",
        help="LoRAs of the same family, without labels, such as your own: their means are taken over, so that such LoRAs are read better.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", help="Where to compute. Default: cuda if there is one, else cpu."),
]
Engine = Annotated[
    EngineName,
    typer.Option(
        "--engine", help="What reads the files: threads of this machine, or a Ray cluster (the extra ray of pip)."
    ),
]
PartsFolder = Annotated[
    Path | None,
    typer.Option(
        "--parts", metavar="FOLDER", help="Where Ray's results are kept until they are in the zoo. Default: your cache."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="A running Ray cluster. Default: $RAY_ADDRESS, else a new one on this machine.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on stdout.")]
Ids = Annotated[bool, typer.Option("--ids", help="Show ids of models on terminals of less than 120 columns too.")]
Count = Annotated[int, typer.Option("-k", "--count", metavar="NUMBER", min=1, max=1000, help="How many answers.")]
FoldersToCompare = Annotated[
    list[Path] | None,
    typer.Option(
        "--folder",
        metavar="FOLDER",
        help="Compare with the LoRAs below this folder instead of the zoo; may be repeated.",
    ),
]


def examples(*lines: str) -> str:
    """Return the end of a command's help: examples, each a paragraph so that it is printed on a line of its own."""
    return "\n\n".join(("Example:" if len(lines) == 1 else "Examples:", *lines))
