"""``loradex draw``: drawings with LoRAs beside drawings of their base models without them."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loradex.app.commands.options import FILES_PANEL, BaseModelFolders, Json, ZooToWrite, examples
from loradex.app.commands.output import exit_if_refused, print_answer, print_message
from loradex.retrieval.errors import LoradexError

if TYPE_CHECKING:
    from loradex.app.drawing.options import DrawOptions
    from loradex.app.drawing.renderer import DrawingPair, Renderer

PNG = ".png"
TIMEOUT = 3600.0  # seconds per file; large models take long on a CPU, and Ctrl+C ends it

app = typer.Typer()


@app.command(
    epilog=examples(
        'loradex draw my_lora.safetensors --base sdxl=models/sdxl --prompt "a lighthouse"',
        "loradex draw --missing --zoo my-zoo",
    ),
    rich_help_panel=FILES_PANEL,
)
def draw(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="LoRA files (.safetensors).")] = None,
    base: BaseModelFolders = None,
    prompt: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="What to draw. Default: the trigger words, else the base model's own prompt."
        ),
    ] = "",
    seed: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Random seed of the noise. Default: that of the miniature's drawings."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Denoising steps, 1 to 50. Default: the base model's.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="How closely to follow the prompt, 0 to 30. Default: the base model's."),
    ] = None,
    strength: Annotated[float, typer.Option(metavar="NUMBER", help="Factor of the LoRA's update, -2 to 2.")] = 1.0,
    size: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", help="Width and height in pixels, 64 to 1024. Default: the base model's."),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="PLACE", help="Folder of the pictures, or for one file the .png to write.")
    ] = Path(),
    missing: Annotated[
        bool,
        typer.Option(
            "--missing", help="Instead of files, draw the models of --zoo that have no drawing, with default options."
        ),
    ] = False,
    zoo: ZooToWrite = None,
    as_json: Json = False,
) -> None:
    """Draw with LoRAs: one PNG each, the base model alone on the left, with the LoRA on the right."""
    if missing == bool(files):
        raise typer.BadParameter("expected files or --missing, and not both; name what to draw", param_hint="FILE")
    if out.suffix.lower() == PNG and len(files or ()) > 1:
        raise typer.BadParameter(
            f"expected a folder for {len(files or ())} files, found a .png; name a folder", param_hint="--out"
        )
    from loradex.app.commands.progress import spinner

    with spinner("Loading the encoder"):
        from loradex.app.drawing.base_models import BaseModels
        from loradex.app.drawing.options import DEFAULT_SEED, DrawOptions
        from loradex.app.drawing.renderer import Renderer
        from loradex.app.paths import encoder_folders
        from loradex.retrieval.encoder import Encoder

        options = DrawOptions(prompt, DEFAULT_SEED if seed is None else seed, steps, guidance, strength, size)
        renderer = Renderer(
            BaseModels.from_pairs(base or ()), open_file=Encoder.load(*encoder_folders()).router.open, timeout=TIMEOUT
        )
    if missing:
        draw_missing_models(renderer, zoo, as_json)
        return
    results, refused = [], {}
    for file in files or ():
        try:
            results.append(draw_file(renderer, file, options, out))
        except (LoradexError, OSError) as error:
            refused[str(file)] = str(error)
    print_results(results, refused, as_json)


def draw_file(renderer: Renderer, file: Path, options: DrawOptions, out: Path) -> dict[str, Any]:
    """Draw with a LoRA and without it, write both drawings into one PNG file, and return the JSON of the result."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.indexing.file_reader import display_name
    from loradex.app.miniature.pipeline import image_grid
    from loradex.app.previews import save_png

    start = time.perf_counter()
    with progress_bar("Drawing") as progress:
        pair = renderer.draw(file, options, progress=lambda done, total: progress(done, total, file.name))
    target = out if out.suffix.lower() == PNG else out / f"{display_name(file)}-{pair.id[:8]}-without-with{PNG}"
    target.parent.mkdir(parents=True, exist_ok=True)
    save_png(image_grid([pair.without_model.image, pair.with_model.image], 2), target)
    return result_document(file, target, pair) | {"took_s": round(time.perf_counter() - start, 3)}


def result_document(file: Path, target: Path, pair: DrawingPair) -> dict[str, Any]:
    """One result of ``loradex draw --json``."""
    cached = {"cached": {"without": pair.without_model.cached, "with": pair.with_model.cached}}
    return {
        "file": str(file),
        "id": pair.id,
        "family": pair.family,
        "picture": str(target),
        **asdict(pair.options),
        **cached,
        "doubts": list(pair.warnings),
    }


def print_results(results: list[dict[str, Any]], refused: dict[str, str], as_json: bool) -> None:
    """Print where the pictures are, warnings about parts of the LoRAs that were not drawn, and the refused files."""
    from loradex.app.commands.tables.draw import drawings_table
    from loradex.app.reporting import refusal_list

    if results or as_json:
        print_answer({"results": results, "refused": refusal_list(refused)}, drawings_table(results), as_json)
    for result in results:
        for warning in result["doubts"]:
            print_message(f"{result['file']}: {warning}")
    exit_if_refused(list(refused.values()), len(results) + len(refused))


def draw_missing_models(renderer: Renderer, place: str | None, as_json: bool) -> None:
    """Draw the models of a zoo that have no drawing, and store the drawings in the zoo."""
    from loradex.app.commands.progress import progress_bar
    from loradex.app.commands.tables.zoo import counts_table
    from loradex.app.drawing.previews import draw_previews, models_without_preview
    from loradex.app.paths import zoo_to_write
    from loradex.app.reporting import refusal_list
    from loradex.index import open_zoo

    drawn, refused = [], {}
    with open_zoo(zoo_to_write(place)) as zoo, progress_bar("Drawing") as progress:
        models, folder = models_without_preview(zoo, renderer), str(zoo.folder)
        for done, outcome in enumerate(draw_previews(zoo, renderer, models), 1):
            progress(done, len(models), outcome.model.name)
            if outcome.reason is None:
                drawn.append(outcome.model.id)
            else:
                refused[outcome.model.path or outcome.model.id] = outcome.reason
    table = counts_table(folder, {"drawn": len(drawn), "refused": len(refused)}, ("models", "count"))
    print_answer({"zoo": folder, "drawn": drawn, "refused": refusal_list(refused)}, table, as_json)
    exit_if_refused(list(refused.values()), len(models))
