"""``loradex grow --dry-run``: measures one batch of concepts and says how long the whole takes."""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

import torch

from loradex.app.growing.folder import concepts_in, free_bytes, save_picture
from loradex.app.growing.lora_growing import LoraRecipe, grow_loras
from loradex.app.growing.options import GrowOptions, GrowPlan, GrowProgress, no_progress
from loradex.app.growing.own_pictures import copy_pictures
from loradex.app.growing.run import GrowRun
from loradex.app.growing.word_list import Word

MEASURED_STEPS: Final = 2  # of training


def plan_growing(name: str, options: GrowOptions, progress: GrowProgress = no_progress) -> GrowPlan:
    """Measure drawing and growing on one batch, in a temporary folder.

    Raises:
        LoradexError: as ``loradex.app.growing.grow.grow``.
    """
    run = GrowRun.prepare(name, options)
    without = sum(not all(path.is_file() for path in each.pictures) for each in run.concepts)
    to_draw = 0 if options.pictures else without * run.drawings_per_lora
    to_grow = sum(not concept.weights.is_file() for concept in run.concepts)
    progress("loading the base model", 0, 3)
    denoiser = run.denoiser
    with TemporaryDirectory() as folder:
        words = [Word(concept.word, "") for concept in run.concepts[: run.recipe.concepts_at_once]]
        concepts = concepts_in(Path(folder), words, 1)
        progress("a picture of each of some concepts", 1, 3)
        started = perf_counter()
        if options.pictures:
            for concept in concepts:
                copy_pictures(options.pictures, concept)
        else:
            for concept, image in zip(concepts, run.draw([(concept.word, 0) for concept in concepts]), strict=True):
                save_picture(image, concept.pictures[0])
        draw_s = (perf_counter() - started) / len(concepts)
        condition = denoiser.encode_prompts([run.base.prompt])
        denoiser.release_drawing()
        progress("growing them", 2, 3)
        short = measured_recipe(run)
        started = perf_counter()
        with run.base.threads():
            (updates, *_) = grow_loras(denoiser, run.layers, concepts, condition, short)
        sample_s = (perf_counter() - started) / len(concepts) / short.samples_in_all
        concepts[0].save_lora(updates, run.base.component, {})
        lora_bytes = concepts[0].weights.stat().st_size
        picture_bytes = concepts[0].pictures[0].stat().st_size
    seconds = to_draw * draw_s + to_grow * run.recipe.samples_in_all * sample_s
    return GrowPlan(
        base=str(run.base.base.path),
        family=run.base.base.family,
        device=run.device,
        folder=str(run.folder),
        loras=len(run.concepts),
        to_draw=to_draw,
        to_grow=to_grow,
        layers=len(run.layers),
        draw_s=round(draw_s, 3),
        sample_s=round(sample_s, 4),
        hours=round(seconds / 3600, 2),
        bytes=to_draw // options.draws * picture_bytes + to_grow * lora_bytes,
        free_bytes=free_bytes(run.folder),
        peak_bytes=peak_bytes(run.device),
    )


def measured_recipe(run: GrowRun) -> LoraRecipe:
    """A recipe with enough samples to measure one."""
    recipe = run.recipe
    if recipe.steps:
        return replace(recipe, steps=min(recipe.steps, MEASURED_STEPS))
    return replace(recipe, samples=min(recipe.samples, max(recipe.batch, MEASURED_STEPS)))


def peak_bytes(device: str) -> int | None:
    """The memory that was used at most: of the GPU, or of this process; None for a process of Windows."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # Windows has no such module

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
