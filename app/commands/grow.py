"""``loradex grow``: an expert from a base model alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loradex.app.commands.options import EXPERTS_PANEL, Device, Json, LikeFolder, examples
from loradex.app.commands.output import print_answer

app = typer.Typer()


@app.command(
    epilog=examples(
        "loradex grow sd1 --dry-run",
        "loradex grow sdxl --count 1000",
        "loradex grow sd1 --pictures my-pictures --like ~/ComfyUI/models/loras",
    ),
    rich_help_panel=EXPERTS_PANEL,
)
def grow(
    base: Annotated[
        str,
        typer.Argument(
            metavar="BASE",
            help="A family whose base model `loradex base` knows, or the path of a base model: a folder of diffusers, or a checkpoint in one file.",
        ),
    ],
    words: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Words to draw, one a line. Default: the list that ships."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", help="How many of the words. Default: 1,000 of the list that ships, or all of yours."
        ),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Pictures of your own in place of drawings: a folder for each concept, named by it."
        ),
    ] = None,
    pictures_per_lora: Annotated[
        int, typer.Option("--pictures-per-lora", metavar="NUMBER", help="How many pictures each LoRA is made of.")
    ] = 3,
    draws: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            help="How many pictures are drawn for each one; CLIP chooses those that show the word best.",
        ),
    ] = 2,
    loras_per_word: Annotated[
        int,
        typer.Option("--loras-per-word", metavar="NUMBER", help="How many LoRAs of each word, each of other pictures."),
    ] = 1,
    steps: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            help="Steps of training of each LoRA; 0 takes the gradient alone, which is quicker.",
        ),
    ] = 40,
    samples: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="Noisy pictures of each LoRA: in a step of training (2), or in all for a gradient (48).",
        ),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Rank of the LoRAs. Default: 4, of gradients 16.")
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="ENDS", help="Ends of the names of the layers to grow, with commas. Default: those of attention."
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Side of the pictures. Default: the base model's own.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="Noisy pictures in memory at once. Default: by the device; halved where memory does not suffice.",
        ),
    ] = None,
    like: LikeFolder = None,
    tree: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the expert's model tree. Default: the family.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where pictures and LoRAs are kept. Default: in your data folder."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Encoder folder to put the expert into. Default: $LORADEX_ENCODER, else your own."
        ),
    ] = None,
    device: Device = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Random seed of pictures and noise.")] = 0,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Measure one batch of words, and say how many hours and bytes the whole takes."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Grow an expert from a base model alone: it draws words, and LoRAs of the pictures train the expert.

    No LoRA and no label is needed. A run that was stopped goes on where it was with the same command.
    """
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.grow import grow_table, plan_table
    from loradex.app.growing.grow import grow as grow_expert
    from loradex.app.growing.options import GrowOptions
    from loradex.app.growing.plan import plan_growing

    ends = tuple(end.strip() for end in layers.split(",") if end.strip()) if layers else None
    options = GrowOptions(
        words,
        count,
        pictures,
        pictures_per_lora,
        draws,
        loras_per_word,
        steps,
        samples,
        rank,
        ends,
        size,
        batch,
        tree,
        folder,
        like,
        device,
        seed,
    )
    with progress_bar("Growing") as bar:
        if dry_run:
            plan = plan_growing(base, options, lambda step, done, total: bar(done, total, step))
        else:
            answer = grow_expert(base, out, options, lambda step, done, total: bar(done, total, step))
    if dry_run:
        print_answer(plan.document(), plan_table(plan), as_json)
    else:
        print_answer(answer.document(), grow_table(answer), as_json)
