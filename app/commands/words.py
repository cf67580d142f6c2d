"""``loradex words``: the words that LoRAs were trained with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loradex.app.commands.files import FilesOrFolders
from loradex.app.commands.options import FILES_PANEL, Count, Json, WordsBases, examples
from loradex.app.commands.output import exit_if_refused, print_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loradex.app.reporting import ProgressCallback
    from loradex.app.words import FileWords, WordsService

app = typer.Typer()


@app.command(
    epilog=examples(
        "loradex words my_lora.safetensors --base sd1=models/checkpoints/v1-5.safetensors",
        "loradex words ~/ComfyUI/models/loras --words my-triggers.txt",
        "loradex words my_lora.safetensors --spell",
    ),
    rich_help_panel=FILES_PANEL,
)
def words(
    places: FilesOrFolders,
    k: Count = 10,
    own_words: Annotated[
        Path | None,
        typer.Option(
            "--words",
            metavar="FILE",
            help="Text file with the words to choose from, one per line. Default: 20,000 English words.",
        ),
    ] = None,
    spell: Annotated[
        bool,
        typer.Option(
            "--spell",
            help="Also spell words that stand in no list, token by token. Takes minutes a file with large base models.",
        ),
    ] = False,
    base: WordsBases = None,
    as_json: Json = False,
) -> None:
    """Read the words that LoRAs were trained with, such as trigger words, by the text encoder of their base model."""
    from loradex.app.bases import Bases
    from loradex.app.commands.progress import progress_bar, words_progress
    from loradex.app.commands.tables.words import words_table
    from loradex.app.describe.inspection import expand_folders
    from loradex.app.text_lists import read_lines
    from loradex.app.words import WordsService

    candidates = read_lines(own_words, "word") if own_words else []
    files, refused = expand_folders(places)
    with progress_bar() as progress:
        service = WordsService(Bases.load(base or ()), words_progress(progress))
        answers = read_all(service, files, k, candidates, spell, progress)
    reasons = [*refused.values(), *(str(answer.reason) for answer in answers if not answer.readable)]
    total = len(answers) + len(refused)
    if len(reasons) < total or as_json:
        print_answer({"results": [answer.as_json() for answer in answers]}, words_table(answers), as_json)
    exit_if_refused(reasons, total)


def read_all(
    service: WordsService,
    files: Sequence[Path],
    k: int,
    candidates: Sequence[str],
    spell: bool,
    progress: ProgressCallback,
) -> list[FileWords]:
    """Read the words of files; ``progress`` is called before each file, and while words are spelt."""
    from loradex.app.commands.progress import spelling_progress

    answers = []
    for done, path in enumerate(files):
        progress(done, len(files), path.name)
        answers.append(service.read_path(path, k, candidates, spell, spelling_progress(progress)))
    progress(len(files), len(files), "")
    return answers
