"""The ``loradex`` command. Heavy libraries are imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loradex.app.commands.categories import EXAMPLE as CATEGORIES_EXAMPLE
from loradex.app.commands.categories import categories
from loradex.app.commands.draw import EXAMPLE as DRAW_EXAMPLE
from loradex.app.commands.draw import draw
from loradex.app.commands.options import (
    After,
    Before,
    Below,
    Count,
    Engine,
    Families,
    Folders,
    Formats,
    Json,
    Known,
    Labels,
    LabelTable,
    Parts,
    Rank,
    RayAddress,
    Tags,
    Zoo,
    ZooToWrite,
    examples,
)
from loradex.app.commands.output import complain, leave_if_refused, show
from loradex.app.commands.serve import EXAMPLE as SERVE_EXAMPLE
from loradex.app.commands.serve import serve
from loradex.app.commands.zoo import zoo_app
from loradex.app.indexing.reading_engines import EngineName

if TYPE_CHECKING:
    from loradex.app.search.lookalikes import Library

FIND, FILES, KEEP, MEASURE = "Find models", "Look at LoRA files", "Keep and serve a zoo", "Train and measure experts"
HELP = """Find fine-tuned image models by what their weights say.

A zoo is a folder of models that were indexed; one ships, the miniature. An expert reads the weights of one family of models.

`loradex COMMAND --help` tells options and examples. Exit status: 0 done, 1 could not, 2 wrong usage, 3 done in part."""
PLACES = "Folders that hold LoRAs, at any depth, hf://owner/name, if wanted with @revision, or a folder of a store as s3://bucket/folder."
EXAMPLES = {
    "loradex": examples(
        'loradex search "a slice of pizza" --zoo miniature', "loradex index ~/ComfyUI/models/loras", "loradex serve"
    ),
    "search": examples(
        'loradex search "a slice of pizza" -k 5',
        "loradex search dog --minus puppy --rank 8-32",
        "loradex search --like my_lora.safetensors",
    ),
    "label": examples("loradex label my_lora.safetensors --labels words.txt"),
    "inspect": examples("loradex inspect ~/ComfyUI/models/loras --json"),
    "describe": examples("loradex describe ~/ComfyUI/models/loras --dry-run"),
    "similar": examples("loradex similar my_lora.safetensors --folder ~/ComfyUI/models/loras"),
    "duplicates": examples("loradex duplicates ~/ComfyUI/models/loras"),
    "index": examples(
        "loradex index ~/ComfyUI/models/loras --zoo my-zoo",
        "loradex index hf://owner/name@revision",
        "loradex index s3://bucket/loras --engine ray",
    ),
    "train": examples(
        "loradex train my-loras --labels labels.csv", "loradex train my-classifiers --base ancestor.safetensors"
    ),
    "evaluate": examples(
        "loradex evaluate --tree mini-b",
        "loradex evaluate --tree mini-vit",
        "loradex evaluate my-loras --labels labels.csv",
    ),
    "mcp": examples("loradex mcp --zoo my-zoo", "claude mcp add loradex -- loradex mcp"),
}


class Kind(StrEnum):
    """The kinds of experts."""

    LORADEX = "loradex"
    PROBEX = "probex"
    MVPROBE = "mvprobe"


class Form(StrEnum):
    """Where descriptions are written."""

    SIDE_CAR = "side-car"
    CARD = "card"


class Tree(StrEnum):
    """The model trees of the miniature."""

    A = "mini-a"
    B = "mini-b"
    VIT = "mini-vit"
    RESNET = "mini-resnet"


app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP, epilog=EXAMPLES["loradex"]
)
app.add_typer(zoo_app, name="zoo", rich_help_panel=KEEP)


@app.command(epilog=EXAMPLES["search"], rich_help_panel=FIND)
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
        typer.Option("--picture", metavar="FILE", help="A picture file that it should draw like; may be repeated."),
    ] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            "--like", metavar="MODEL", help="A model, by id or file, that it should be like; may be repeated."
        ),
    ] = None,
    k: Count = 10,
    page: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=10_000, help="Which page of --count answers.")] = 1,
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
    """Find models by texts, pictures and other models."""
    if not (texts or picture or like):
        raise typer.BadParameter(
            "expected a text, --picture or --like, found none; say what the model should draw", param_hint="TEXT"
        )
    from loradex.app.commands.tables import hits_table, working

    with working("Loading the encoder"):
        from loradex.app.paths import zoo_to_read
        from loradex.app.search.filters import filter_of
        from loradex.app.search.query import Kind, Part, Query
        from loradex.app.search.service import Loradex
        from loradex.retrieval.lora.facts import is_there

        where = filter_of(family or (), format or (), tag or (), rank, folder, after, before, found_by)
        files = [said for said in like or () if is_there(Path(Part.read(Kind.FILE, said).value))]
        query = Query.of(
            texts or (), minus or (), picture or (), [said for said in like or () if said not in files], files
        )
        answer = Loradex(zoo_to_read(zoo)).search(query, k, offset=k * (page - 1), where=where)
    show(answer.document(), hits_table(answer), as_json)


@app.command(epilog=EXAMPLES["label"], rich_help_panel=FILES)
def label(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="LoRA files (.safetensors).")],
    k: Count = 5,
    labels: Labels = None,
    as_json: Json = False,
) -> None:
    """Say what LoRAs draw, in words that no one trained for."""
    from rich.progress import track

    from loradex.app.commands.tables import labels_table, stderr
    from loradex.app.search.service import Loradex, read_labels

    wanted = read_labels(labels) if labels else None
    answers = list(
        track(
            Loradex().label(files, wanted, k),
            "Reading",
            total=len(files),
            console=stderr(),
            transient=True,
            disable=len(files) < 20,
        )
    )
    refused = [answer for answer in answers if answer.refused]
    if len(refused) < len(answers) or as_json:
        show({"results": [answer.document() for answer in answers]}, labels_table(answers), as_json)
    leave_if_refused([str(answer.reason) for answer in refused], len(answers))


@app.command(epilog=EXAMPLES["inspect"], rich_help_panel=FILES)
def inspect(
    places: Annotated[
        list[Path], typer.Argument(metavar="PLACE", help="LoRA files, or folders that hold some, at any depth.")
    ],
    hashes: Annotated[
        bool, typer.Option("--hash", help="Read each file whole, for its SHA-256 and the hash of its weights.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show format, family, ranks, trainer and trigger words of LoRAs, from their headers."""
    from loradex.app.commands.tables import inspect_table, progress_bar
    from loradex.app.describe.inspection import inspect_files

    with progress_bar() as progress:
        answer = inspect_files(places, hashes, progress)
    if answer.files or as_json:
        show(answer.document(), inspect_table(answer), as_json)
    leave_if_refused(list(answer.refused.values()), len(answer.files) + len(answer.refused))


@app.command(epilog=EXAMPLES["describe"], rich_help_panel=FILES)
def describe(
    places: Annotated[
        list[Path], typer.Argument(metavar="PLACE", help="LoRA files, or folders that hold some, at any depth.")
    ],
    form: Annotated[
        Form, typer.Option("--as", help="A .metadata.json beside each file, or the README.md of its folder.")
    ] = Form.SIDE_CAR,
    labels: Labels = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write what was found about LoRAs beside them, for ComfyUI-Lora-Manager or the Hugging Face hub; what people wrote stays."""
    from loradex.app.commands.tables import describe_table, progress_bar
    from loradex.app.describe.descriptions import describe_files
    from loradex.app.search.service import Loradex, read_labels

    wanted = read_labels(labels) if labels else None
    with progress_bar() as progress:
        answer = describe_files(places, Loradex(), form, wanted, dry_run=dry_run, progress=progress)
    if answer.files or as_json:
        show(answer.document(), describe_table(answer), as_json)
    leave_if_refused(list(answer.refused.values()), len(answer.files) + len(answer.refused))


app.command(epilog=CATEGORIES_EXAMPLE, rich_help_panel=FILES)(categories)


app.command(epilog=DRAW_EXAMPLE, rich_help_panel=FILES)(draw)


@app.command(epilog=EXAMPLES["similar"], rich_help_panel=FIND)
def similar(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A LoRA file (.safetensors).")],
    k: Count = 10,
    folder: Folders = None,
    zoo: Zoo = None,
    as_json: Json = False,
) -> None:
    """Find copies, re-saves, merges and other versions of a LoRA of any family."""
    from loradex.app.commands.tables import similar_table

    library = library_of(folder, zoo)
    answer = library.similar(file, k)
    show(answer.document(), similar_table(answer), as_json)
    leave_if_refused(list(answer.refused.values()), answer.compared + len(answer.refused))


@app.command(epilog=EXAMPLES["duplicates"], rich_help_panel=FIND)
def duplicates(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Folders that hold LoRAs, at any depth. Default: the zoo."),
    ] = None,
    zoo: Zoo = None,
    as_json: Json = False,
) -> None:
    """List LoRAs that hold the same update, were merged, or are versions of one another."""
    from loradex.app.commands.tables import duplicates_table

    answer = library_of(folders, zoo).duplicates()
    show(answer.document(), duplicates_table(answer), as_json)
    leave_if_refused(list(answer.refused.values()), answer.compared + len(answer.refused))


def library_of(folders: list[Path] | None, zoo: str | None) -> Library:
    """The LoRAs below some folders, or of a zoo."""
    from loradex.app.commands.tables import progress_bar
    from loradex.app.paths import zoo_to_read
    from loradex.app.search.lookalikes import Library

    with progress_bar() as progress:
        return Library.of_folders(folders, progress) if folders else Library.of_zoo(zoo_to_read(zoo), progress)


@app.command(epilog=EXAMPLES["index"], rich_help_panel=KEEP)
def index(
    places: Annotated[list[str], typer.Argument(metavar="PLACE", help=PLACES)],
    zoo: ZooToWrite = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Forget files that are gone, and models of which no file is left.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on, and read files as they come, until Ctrl+C; --json then prints a document each time."
        ),
    ] = False,
    engine: Engine = EngineName.LOCAL,
    parts: Parts = None,
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Add LoRAs to a zoo; unchanged files cost one look, and a run that was stopped goes on."""
    from loradex.app.commands.tables import index_table, progress_bar
    from loradex.app.indexing.ingest import index_places
    from loradex.app.indexing.reading_engines import engine_of
    from loradex.app.paths import encoder_folders, zoo_to_write
    from loradex.retrieval.encoder import Encoder

    target, encoder = zoo_to_write(zoo), Encoder.load(*encoder_folders())
    chosen = engine_of(engine, str(target.absolute()), parts, ray_address)
    with progress_bar() as progress:
        answer = index_places(places, target, encoder, progress, prune=prune, engine=chosen)
    show(answer.document(), index_table(answer), as_json)
    if watch:
        from loradex.app.indexing.watch import index_again, local

        complain(f"watching {', '.join(places)} (Ctrl+C ends it)")
        with suppress(KeyboardInterrupt):
            for answer in index_again(
                local(places), lambda: index_places(places, target, encoder, prune=prune, engine=chosen)
            ):
                show(answer.document(), index_table(answer), as_json)
                for reason in answer.refused.values():
                    complain(reason)
        return
    leave_if_refused(list(answer.refused.values()), answer.files)


app.command(epilog=SERVE_EXAMPLE, rich_help_panel=KEEP)(serve)


@app.command(epilog=EXAMPLES["train"], rich_help_panel=MEASURE)
def train(
    zoo: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of labelled models: Model-J's layout, or any folder with labels in headers, side-cars or a CSV.",
        ),
    ],
    labels: LabelTable = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Encoder folder to put the expert into. Default: $LORADEX_ENCODER, else your own."
        ),
    ] = None,
    kind: Annotated[
        Kind, typer.Option("--expert", help="The kind of expert: Loradex's own, or the probes of a paper.")
    ] = Kind.LORADEX,
    layers: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Layers to read: auto (the best, as many as memory holds), all, a number of the best, or names with commas.",
        ),
    ] = "auto",
    tree: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the model tree. Default: the LoRAs' family, the classifiers' folder."
        ),
    ] = None,
    text_encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="CLIP of a new space, as ViT-L-14-quickgelu/openai. Default: the miniature's."
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of the base model (.safetensors), from which whole fine-tuned models are told. Default for those: their mean.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Where probes start.")] = 0,
    device: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="Where probes are trained. Default: cuda if there is one, else cpu."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an expert on LoRAs whose concepts are known, or on whole models whose headers name categories; a run that was stopped goes on where it was."""
    from loradex.app.commands.tables import progress_bar, train_table
    from loradex.app.experts.category_training import train_any
    from loradex.app.experts.training import TrainOptions

    options = TrainOptions(kind, labels, layers, tree, text_encoder, base, seed, device)
    with progress_bar("Training") as progress:
        answer = train_any(zoo, out, options, lambda what, done, total: progress(done, total, what))
    show(answer.document(), train_table(answer), as_json)


@app.command(epilog=EXAMPLES["evaluate"], rich_help_panel=MEASURE)
def evaluate(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="Folder of labelled models, as `loradex train` takes it. Default: the miniature's."
        ),
    ] = None,
    labels: LabelTable = None,
    tree: Annotated[
        Tree, typer.Option(help="Which of the miniature's model trees to measure: two of LoRAs, two of classifiers.")
    ] = Tree.A,
    as_json: Json = False,
) -> None:
    """Measure an expert on held-out concepts, or on classifiers that it never saw; the miniature's beside baselines."""
    from loradex.app.commands.tables import evaluation_tables, working

    with working("Reading LoRAs and measuring"):
        from loradex.app.experts.evaluation import evaluate_miniature, evaluate_zoo

        document = evaluate_zoo(folder, labels) if folder else evaluate_miniature(tree)
    show(document, evaluation_tables(document), as_json)


@app.command(epilog=EXAMPLES["mcp"], rich_help_panel=KEEP)
def mcp(zoo: Zoo = None) -> None:
    """Serve tools (Model Context Protocol) to an agent on this machine, on stdin and stdout."""
    from loradex.app.api.tools import agent_tools
    from loradex.app.backend import Desk
    from loradex.app.paths import zoo_to_read
    from loradex.app.search.service import Loradex

    agent_tools(Desk(Loradex(zoo_to_read(zoo))), local=True).run("stdio")


def main() -> None:
    """Run the command line; errors of the domain end in one line and exit status 1."""
    try:
        app()
    except Exception as error:
        from loradex.index.errors import ZooError
        from loradex.retrieval.errors import LoradexError

        if not isinstance(error, LoradexError | ZooError | OSError):
            raise
        complain(str(error))
        sys.exit(1)
