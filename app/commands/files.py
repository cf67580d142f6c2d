"""``loradex label``, ``inspect``, ``describe`` and ``categories``: what is in LoRA files and classifiers."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loradex.app.commands.options import FILES_PANEL, Count, Json, LabelFile, WordsBases, examples
from loradex.app.commands.output import exit_if_refused, print_answer

if TYPE_CHECKING:
    from loradex.app.search.service import Loradex

FilesOrFolders = Annotated[
    list[Path], typer.Argument(metavar="PLACE", help="LoRA files, or folders that hold some, at any depth.")
]

app = typer.Typer()


class DescriptionForm(StrEnum):
    """Where descriptions are written."""

    SIDE_CAR = "side-car"
    CARD = "card"


@app.command(epilog=examples("loradex label my_lora.safetensors --labels words.txt"), rich_help_panel=FILES_PANEL)
def label(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="LoRA files (.safetensors).")],
    k: Count = 5,
    labels: LabelFile = None,
    as_json: Json = False,
) -> None:
    """Name what LoRAs draw, also in words that no expert was trained on (zero-shot labels)."""
    from loradex.app.commands.progress import track
    from loradex.app.commands.tables.files import labels_table
    from loradex.app.text_lists import read_lines

    candidates = read_lines(labels, "label") if labels else None
    answers = list(track(open_labeller().label(files, candidates, k), len(files)))
    refused = [answer for answer in answers if answer.refused]
    if len(refused) < len(answers) or as_json:
        print_answer({"results": [answer.document() for answer in answers]}, labels_table(answers), as_json)
    exit_if_refused([str(answer.reason) for answer in refused], len(answers))


@app.command(epilog=examples("loradex inspect ~/ComfyUI/models/loras --json"), rich_help_panel=FILES_PANEL)
def inspect(
    places: FilesOrFolders,
    hashes: Annotated[
        bool, typer.Option("--hash", help="Read each file to its end, for its SHA-256 and the hash of its weights.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show format, family, ranks, trainer and trigger words of LoRAs, from their headers."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.files import inspect_table
    from loradex.app.describe.inspection import inspect_files

    with progress_bar() as progress:
        answer = inspect_files(places, hashes, progress)
    if answer.files or as_json:
        print_answer(answer.document(), inspect_table(answer), as_json)
    exit_if_refused(list(answer.refused.values()), len(answer.files) + len(answer.refused))


@app.command(epilog=examples("loradex describe ~/ComfyUI/models/loras --dry-run"), rich_help_panel=FILES_PANEL)
def describe(
    places: FilesOrFolders,
    form: Annotated[
        DescriptionForm, typer.Option("--as", help="A .metadata.json beside each file, or the README.md of its folder.")
    ] = DescriptionForm.SIDE_CAR,
    labels: LabelFile = None,
    base: WordsBases = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write labels, words and facts beside LoRAs, for ComfyUI-Lora-Manager or the hub; your own texts are kept."""
    from loradex.app.bases import Bases
    from loradex.app.commands.progress import progress_bar, words_progress
    from loradex.app.commands.tables.files import describe_table
    from loradex.app.describe.descriptions import describe_files
    from loradex.app.text_lists import read_lines
    from loradex.app.words import WordsService

    candidates = read_lines(labels, "label") if labels else None
    with progress_bar() as progress:
        words = WordsService(Bases.load(base or ()), words_progress(progress))
        answer = describe_files(
            places, open_labeller(), form, candidates, dry_run=dry_run, progress=progress, words=words
        )
    if answer.files or as_json:
        print_answer(answer.document(), describe_table(answer), as_json)
    exit_if_refused(list(answer.refused.values()), len(answer.files) + len(answer.refused))


@app.command(epilog=examples("loradex categories model.safetensors"), rich_help_panel=FILES_PANEL)
def categories(
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Fine-tuned image classifiers (.safetensors).")],
    as_json: Json = False,
) -> None:
    """Predict which categories image classifiers were trained on, by their weights alone."""
    from loradex.app.commands.progress import track
    from loradex.app.commands.tables.files import categories_table
    from loradex.app.experts.category_prediction import SURE_PROBABILITY, predict_categories
    from loradex.app.paths import folders_with_experts
    from loradex.retrieval.encoder import Encoder

    encoder = Encoder.load(*folders_with_experts("categories"))
    answers = list(track(predict_categories(encoder, files), len(files)))
    refused = [answer for answer in answers if answer.reason]
    if len(refused) < len(answers) or as_json:
        table = categories_table(answers, SURE_PROBABILITY)
        print_answer({"results": [answer.document() for answer in answers]}, table, as_json)
    exit_if_refused([str(answer.reason) for answer in refused], len(answers))


def open_labeller() -> Loradex:
    """What labels files: the experts of the person's encoder if it has some, else those that ship; no zoo is needed."""
    from loradex.app.paths import folders_with_experts
    from loradex.app.search.service import Loradex

    loradex = Loradex()
    loradex.encoder_folders = folders_with_experts()
    return loradex
