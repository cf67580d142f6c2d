"""``loradex train`` and ``evaluate``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from loradex.app.commands.options import EXPERTS_PANEL, Device, Json, LabelCsv, LikeFolder, examples
from loradex.app.commands.output import print_answer

app = typer.Typer()


class ExpertKind(StrEnum):
    """The kinds of experts."""

    LORADEX = "loradex"
    PROBEX = "probex"
    MVPROBE = "mvprobe"


class MiniatureTree(StrEnum):
    """The model trees of the miniature."""

    A = "mini-a"
    B = "mini-b"
    VIT = "mini-vit"
    RESNET = "mini-resnet"


@app.command(
    epilog=examples(
        "loradex train my-loras --labels labels.csv",
        "loradex train my-loras --with grown-sdxl --like all-my-loras",
        "loradex train my-classifiers --base ancestor.safetensors",
    ),
    rich_help_panel=EXPERTS_PANEL,
)
def train(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]",
            help="Folder of labelled models: Model-J's layout, or any folder with labels in headers, side-cars or a CSV file. "
            "Not needed with --with.",
        ),
    ] = None,
    labels: LabelCsv = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Encoder folder to put the expert into. Default: $LORADEX_ENCODER, else your own."
        ),
    ] = None,
    kind: Annotated[
        ExpertKind, typer.Option("--expert", help="The kind of expert: Loradex's own, or the probes of a paper.")
    ] = ExpertKind.LORADEX,
    layers: Annotated[
        str,
        typer.Option(
            metavar="WHICH",
            help="Layers to read: auto (all; of classifiers the best, as many as fit into memory; of probes the best), all, a number of the "
            "best, or names with commas.",
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
            metavar="NAME",
            help="CLIP model of a new space, such as ViT-L-14-quickgelu/openai. Default: the miniature's.",
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights of the base model (.safetensors), subtracted from those of full models. Default: the mean of the full models.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Random seed of the probes.")] = 0,
    device: Device = None,
    grown: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="FOLDER",
            help="LoRAs that `loradex grow` made, to be trained on too; repeatable. Concepts that FOLDER keeps for validation or test are left out.",
        ),
    ] = None,
    like: LikeFolder = None,
    as_json: Json = False,
) -> None:
    """Train an expert on labelled LoRAs, or on classifiers with known categories; a run that was stopped is resumed."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.experts import train_table
    from loradex.app.experts.training import train_expert
    from loradex.app.experts.training_options import TrainOptions

    options = TrainOptions(kind, labels, layers, tree, text_encoder, base, seed, device, tuple(grown or ()), like)
    with progress_bar("Training") as progress:
        answer = train_expert(folder, out, options, lambda what, done, total: progress(done, total, what))
    print_answer(answer.document(), train_table(answer), as_json)


@app.command(
    epilog=examples(
        "loradex evaluate --tree mini-b",
        "loradex evaluate --tree mini-vit",
        "loradex evaluate my-loras --labels labels.csv",
        "loradex evaluate --words",
    ),
    rich_help_panel=EXPERTS_PANEL,
)
def evaluate(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", help="Folder of labelled models, as `loradex train` takes it. Default: the miniature's."
        ),
    ] = None,
    labels: LabelCsv = None,
    tree: Annotated[
        MiniatureTree,
        typer.Option(help="Which of the miniature's model trees to measure: two of LoRAs, two of classifiers."),
    ] = MiniatureTree.A,
    words: Annotated[
        bool,
        typer.Option(
            "--words",
            help="Measure how words are read from LoRAs whose captions are known (FOLDER has a captions.json), no expert.",
        ),
    ] = False,
    spell: Annotated[
        bool, typer.Option("--spell", help="With --words: also spell trigger words without any list; takes long.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure an expert on held-out concepts, or on unseen classifiers; the miniature's beside baselines."""
    from loradex.app.commands.progress import progress_bar, spinner
    from loradex.app.commands.tables.experts import evaluation_tables

    if words:
        from loradex.app.experts.words_evaluation import evaluate_words

        with progress_bar() as bar:
            document = evaluate_words(folder, spell, lambda done, total: bar(done, total, ""))
        print_answer(document, evaluation_tables(document), as_json)
        return
    with spinner("Reading LoRAs and measuring"):
        from loradex.app.experts.evaluation import evaluate_folder, evaluate_miniature

        document = evaluate_folder(folder, labels) if folder else evaluate_miniature(tree)
    print_answer(document, evaluation_tables(document), as_json)
