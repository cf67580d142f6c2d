"""``loradex grow``: words -> pictures that a base model draws -> LoRAs -> an expert; each step goes on where it was."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Final

from loradex.app.experts.lora_training import train_lora_expert
from loradex.app.experts.training_options import check_tree_name
from loradex.app.experts.training_steps import open_encoder
from loradex.app.growing.contact_sheet import make_contact_sheet
from loradex.app.growing.errors import GrowError
from loradex.app.growing.folder import CONTACT_SHEET, check_settings
from loradex.app.growing.options import GrowAnswer, GrowOptions, GrowProgress, no_progress
from loradex.app.growing.run import GrowRun
from loradex.app.paths import MINIATURE, user_encoder
from loradex.retrieval.encoder import SPACE_FILE
from loradex.retrieval.space.embedding_space import Space

LOG = logging.getLogger(__name__)
MAX_REASON: Final = 200  # characters


def grow(name: str, out: Path | None, options: GrowOptions, progress: GrowProgress = no_progress) -> GrowAnswer:
    """Grow an expert from a base model, and save it into an encoder folder; a run that was stopped is continued.

    Args:
        name: the family of a base model that ``loradex base`` knows, or its path.
        out: the encoder folder to save the expert into; by default the user's own.
        options: how.
        progress: called with each step.

    Raises:
        LoradexError: the base model, the words, the pictures or the text encoder cannot be used, or the disk is full.
    """
    out = out or user_encoder()
    run = GrowRun.prepare(name, options)
    tree = options.tree or run.base.base.family
    check_tree_name(tree, out, "categories")
    with disk_errors(out):
        encoder = open_encoder(out, None, ())
        _ = encoder.text_encoder  # what would end the run in the end ends it now
    if not run.base.is_miniature and encoder.space.name == Space.load(MINIATURE / "encoder" / SPACE_FILE).name:
        LOG.warning(
            "%s: expected the space of a CLIP that knows photographs, found the miniature's, which knows emoji; pictures and LoRAs can "
            "be used again: `loradex space use ViT-L-14-quickgelu/openai`, then the same command",
            out,
        )
    with disk_errors(run.folder):
        check_settings(run.folder, run.settings)
    if not all(concept.weights.is_file() for concept in run.concepts):
        _ = run.layers  # also ends a run that cannot succeed before hours of work
    took: dict[str, float] = {}
    with timed(took, "pictures"), disk_errors(run.folder):
        run.make_pictures(encoder, progress)
    sheet = None if options.pictures else run.folder / CONTACT_SHEET
    if sheet:
        make_contact_sheet(run.concepts[: len(run.concepts) // options.loras_per_word], sheet)
    with timed(took, "loras"), disk_errors(run.folder):
        run.make_loras(progress)
    with timed(took, "expert"):
        answer = train_lora_expert(run.folder, out, run.training(tree), progress)
    return GrowAnswer(
        expert=answer.expert,
        tree=tree,
        family=answer.family,
        space=answer.space,
        folder=str(run.folder),
        contact_sheet=str(sheet) if sheet else None,
        words=len(run.concepts) // options.loras_per_word,
        loras=len(run.concepts),
        layers=len(answer.layers),
        validation=answer.validation,
        took_s=took,
    )


@contextmanager
def timed(took: dict[str, float], step: str) -> Iterator[None]:
    """Note the seconds that a step takes."""
    started = perf_counter()
    yield
    took[step] = round(perf_counter() - started, 1)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the disk into one line.

    Raises:
        GrowError: a file cannot be written.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())[:MAX_REASON]
        raise GrowError(
            f"{folder}: expected a disk to write to, found: {reason}; make room or name another folder, "
            "and give the same command again: it goes on where it was"
        ) from None
