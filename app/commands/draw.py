"""``loradex draw``: what LoRAs draw, beside what their base models draw without them."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loradex.app.commands.options import Bases, Json, ZooToWrite, examples
from loradex.app.commands.output import complain, leave_if_refused, show
from loradex.retrieval.errors import LoradexError

if TYPE_CHECKING:
    from loradex.app.drawing.options import Wish
    from loradex.app.drawing.renderer import Pair, Studio

EXAMPLE = examples(
    'loradex draw my_lora.safetensors --base sdxl=models/sdxl --prompt "a lighthouse"',
    "loradex draw --missing --zoo my-zoo",
)
PNG = ".png"
LIMIT = 3600.0  # seconds a file; large models take long on a CPU, and Ctrl+C ends it


def draw(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="LoRA files (.safetensors).")] = None,
    base: Bases = None,
    prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="What to draw. Default: the trigger words, else the base's own prompt.")
    ] = "",
    seed: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Where the noise comes from. Default: that of the miniature's drawings."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="How many steps, 1 to 50. Default: as the base has it.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="How closely to follow the prompt, 0 to 30. Default: as the base has it."),
    ] = None,
    strength: Annotated[
        float, typer.Option(metavar="NUMBER", help="What the LoRA's update is multiplied by, -2 to 2.")
    ] = 1.0,
    size: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Pixels a side, 64 to 1024. Default: as the base has it.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="PLACE", help="Folder for the pictures, or for one file the .png to write.")
    ] = Path(),
    missing: Annotated[
        bool,
        typer.Option("--missing", help="Draw instead the models of --zoo that have no drawing, with default options."),
    ] = False,
    zoo: ZooToWrite = None,
    as_json: Json = False,
) -> None:
    """Draw what LoRAs do: one PNG each, the base model alone on the left, with the LoRA on the right."""
    if missing == bool(files):
        raise typer.BadParameter("expected files or --missing, and not both; name what to draw", param_hint="FILE")
    if out.suffix.lower() == PNG and len(files or ()) > 1:
        raise typer.BadParameter(
            f"expected a folder for {len(files or ())} files, found a .png; name a folder", param_hint="--out"
        )
    from loradex.app.commands.tables import working

    with working("Loading the encoder"):
        from loradex.app.drawing.base_models import Bases
        from loradex.app.drawing.options import SEED, Wish
        from loradex.app.drawing.renderer import Studio
        from loradex.app.paths import encoder_folders
        from loradex.retrieval.encoder import Encoder

        wish = Wish(prompt, SEED if seed is None else seed, steps, guidance, strength, size)
        studio = Studio(Bases.of(base or ()), open_file=Encoder.load(*encoder_folders()).router.open, limit=LIMIT)
    if missing:
        draw_missing_models(studio, zoo, as_json)
        return
    results, refused = [], {}
    for file in files or ():
        try:
            results.append(draw_file(studio, file, wish, out))
        except (LoradexError, OSError) as error:
            refused[str(file)] = str(error)
    show_results(results, refused, as_json)


def draw_file(studio: Studio, file: Path, wish: Wish, out: Path) -> dict[str, Any]:
    """Draw a file, write both drawings into one PNG, and say what was done."""
    from loradex.app.commands.tables import progress_bar
    from loradex.app.indexing.file_reader import name_of
    from loradex.app.miniature.pipeline import sheet
    from loradex.app.previews import save_png

    began = time.perf_counter()
    with progress_bar("Drawing") as progress:
        pair = studio.draw(file, wish, progress=lambda done, total: progress(done, total, file.name))
    target = out if out.suffix.lower() == PNG else out / f"{name_of(file)}-{pair.id[:8]}-without-with{PNG}"
    target.parent.mkdir(parents=True, exist_ok=True)
    save_png(sheet([pair.without.picture, pair.drawn.picture], 2), target)
    return document_of(file, target, pair) | {"took_s": round(time.perf_counter() - began, 3)}


def document_of(file: Path, target: Path, pair: Pair) -> dict[str, Any]:
    """One result of ``loradex draw --json``."""
    cached = {"cached": {"without": pair.without.cached, "with": pair.drawn.cached}}
    return {
        "file": str(file),
        "id": pair.id,
        "family": pair.family,
        "picture": str(target),
        **asdict(pair.wish),
        **cached,
        "doubts": list(pair.doubts),
    }


def show_results(results: list[dict[str, Any]], refused: dict[str, str], as_json: bool) -> None:
    """Say where the pictures lie, what of the files is not in them, and what was refused."""
    from loradex.app.commands.tables import table_of
    from loradex.app.reporting import reasons

    if results or as_json:
        rows = [(result["file"], result["family"], result["picture"], f"{result['took_s']:.1f}") for result in results]
        show(
            {"results": results, "refused": reasons(refused)},
            table_of(("file", "family", "without | with", "seconds"), rows, "Drawings"),
            as_json,
        )
    for result in results:
        for doubt in result["doubts"]:
            complain(f"{result['file']}: {doubt}")
    leave_if_refused(list(refused.values()), len(results) + len(refused))


def draw_missing_models(studio: Studio, zoo: str | None, as_json: bool) -> None:
    """Draw the models of a zoo that have no drawing."""
    from loradex.app.commands.tables import progress_bar, table_of
    from loradex.app.drawing.previews import draw_missing, undrawn
    from loradex.app.paths import zoo_to_write
    from loradex.app.reporting import reasons
    from loradex.index import open_zoo

    drawn, refused = [], {}
    with open_zoo(zoo_to_write(zoo)) as opened, progress_bar("Drawing") as progress:
        models, place = undrawn(opened, studio), str(opened.folder)
        for done, outcome in enumerate(draw_missing(opened, studio, models), 1):
            progress(done, len(models), outcome.model.name)
            if outcome.reason is None:
                drawn.append(outcome.model.id)
            else:
                refused[outcome.model.path or outcome.model.id] = outcome.reason
    table = table_of(("models", "count"), [("drawn", len(drawn)), ("refused", len(refused))], place)
    show({"zoo": place, "drawn": drawn, "refused": reasons(refused)}, table, as_json)
    leave_if_refused(list(refused.values()), len(models))
