"""``loradex grow``: words -> pictures that a base model draws -> LoRAs -> an expert; each step goes on where it was."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypeVar

import torch

from loradex.app.experts.lora_training import train_lora_expert
from loradex.app.experts.training_options import TrainOptions, check_options, check_tree_name
from loradex.app.experts.training_steps import open_encoder
from loradex.app.growing.contact_sheet import make_contact_sheet
from loradex.app.growing.denoiser import Conditions, Denoiser
from loradex.app.growing.errors import GrowError
from loradex.app.growing.folder import CONTACT_SHEET, Concept, check_settings, concepts_in, save_picture
from loradex.app.growing.layers import ATTENTION, linear_layers
from loradex.app.growing.loading import GrowBase, default_device
from loradex.app.growing.lora_growing import (
    GRADIENT_RANK,
    GRADIENT_SAMPLES,
    STEP_SAMPLES,
    TRAINED_RANK,
    LoraRecipe,
    grow_loras,
)
from loradex.app.growing.options import GrowAnswer, GrowOptions, GrowProgress, no_progress
from loradex.app.growing.own_pictures import copy_pictures, words_of_folder
from loradex.app.growing.word_list import Word, read_words, shipped_words
from loradex.app.paths import MINIATURE, user_data_dir, user_encoder
from loradex.retrieval.encoder import SPACE_FILE
from loradex.retrieval.errors import QueryError
from loradex.retrieval.probex.provenance import GROWN, Provenance
from loradex.retrieval.space.embedding_space import Space

LOG = logging.getLogger(__name__)
ItemT = TypeVar("ItemT")

DRAWN_AT_ONCE: Final = 60  # pictures of the miniature; elsewhere as many as noisy ones
MIN_WORDS: Final = 30
DEFAULT_COUNT: Final = 1000  # of the list that ships
MAX_REASON: Final = 200  # characters


@dataclass
class SampleCount:
    """Counts noisy pictures and reports them."""

    progress: GrowProgress
    done: int
    total: int

    def add(self, samples: int) -> None:
        """Count some more."""
        self.done += samples
        self.progress("growing", self.done, self.total)


@dataclass
class GrowRun:
    """A run of growing.

    Attributes:
        base: the base model.
        options: all options.
        concepts: the words with their files.
        recipe: how LoRAs are made.
    """

    base: GrowBase
    options: GrowOptions
    folder: Path
    concepts: list[Concept]
    recipe: LoraRecipe
    device: str
    _denoiser: Denoiser | None = None

    @classmethod
    def prepare(cls, name: str, options: GrowOptions) -> "GrowRun":
        """Find the base model and the words.

        Raises:
            LoradexError: there is no such base model, or a list of words or a folder cannot be used.
        """
        check_options(TrainOptions(tree=options.tree))
        base = GrowBase.find(name)
        words = words_to_grow(options)
        device = options.device or default_device()
        folder = options.folder or user_data_dir() / "grown" / (options.tree or base.base.family)
        gradient = options.steps == 0
        recipe = LoraRecipe(
            options.steps,
            options.samples or (GRADIENT_SAMPLES if gradient else STEP_SAMPLES),
            options.rank or (GRADIENT_RANK if gradient else TRAINED_RANK),
            options.batch or base.batch(device),
            options.seed,
        )
        concepts = concepts_in(folder, words, options.pictures_per_lora, options.loras_per_word)
        return cls(base, options, folder, concepts, recipe, device)

    @property
    def denoiser(self) -> Denoiser:
        """The base model in memory, loaded when it is first needed."""
        if self._denoiser is None:
            self._denoiser = self.base.load(self.device, self.options.size)
        return self._denoiser

    @property
    def metadata(self) -> dict[str, str]:
        """What a LoRA's header says of its making."""
        steps = self.recipe.steps
        return {"base_model": self.base.base.fingerprint, "grown": f"{steps} steps" if steps else "gradient"}

    @property
    def settings(self) -> dict[str, Any]:
        """What the files of the folder depend on."""
        return {
            "base": self.base.base.fingerprint,
            "family": self.base.base.family,
            "pictures per LoRA": self.options.pictures_per_lora,
            "size": self.options.size,
            "steps": self.recipe.steps,
            "samples": self.recipe.samples,
            "rank": self.recipe.rank,
            "layers": self.options.layers,
            "seed": self.options.seed,
        }

    @property
    def layers(self) -> dict[str, Any]:
        """The layers that are grown, by name."""
        return linear_layers(self.denoiser.module, self.options.layers or ATTENTION)

    def make_pictures(self, progress: GrowProgress) -> None:
        """Draw the pictures that are missing, or copy a person's own."""
        if self.options.pictures:
            for done, concept in enumerate(self.concepts):
                progress("copying pictures", done, len(self.concepts))
                if not concept.pictures[0].is_file():
                    copy_pictures(self.options.pictures, concept)
            return
        total = len(self.concepts) * self.options.pictures_per_lora
        missing = [
            (each.word, each.first + number, path)
            for each in self.concepts
            for number, path in enumerate(each.pictures)
            if not path.is_file()
        ]
        at_once = DRAWN_AT_ONCE if self.base.is_miniature else self.recipe.batch
        for batch in batches_of(missing, at_once):
            progress("drawing", total - len(missing), total)
            self.draw(batch)
            missing = missing[len(batch) :]

    def draw(self, pictures: Sequence[tuple[str, int, Path]]) -> None:
        """Draw pictures of words, each with its number to its path."""
        seeds = [picture_seed(self.options.seed, word, number) for word, number, _ in pictures]
        with self.base.threads():
            images = self.denoiser.draw([word for word, _, _ in pictures], seeds, lambda: None)
        for image, (_, _, path) in zip(images, pictures, strict=True):
            save_picture(image, path)

    def make_loras(self, progress: GrowProgress) -> None:
        """Make the LoRAs that are missing."""
        missing = [concept for concept in self.concepts if not concept.weights.is_file()]
        if not missing:
            return
        condition = self.denoiser.encode_prompts([self.base.prompt])
        self.denoiser.release_drawing()
        total = len(self.concepts) * self.recipe.samples_in_all
        while missing:
            done = total - len(missing) * self.recipe.samples_in_all
            batch = missing[: self.recipe.concepts_at_once]
            try:
                self.grow(batch, condition, SampleCount(progress, done, total).add)
            except torch.OutOfMemoryError:
                self.halve_batch()
            else:
                missing = missing[len(batch) :]

    def halve_batch(self) -> None:
        """Go on with half as many noisy pictures at once.

        Raises:
            GrowError: there was but one.
        """
        if self.recipe.concepts_at_once == 1 and (self.recipe.steps or self.recipe.batch == 1):
            raise GrowError(
                f"{self.base.base.path}: expected memory for one concept on {self.device}, found too little; "
                "give a smaller --size, fewer --samples or another --device"
            )
        self.recipe = replace(self.recipe, batch=max(self.recipe.batch // 2, 1))
        torch.cuda.empty_cache()

    def grow(self, concepts: Sequence[Concept], condition: Conditions, on_samples: Callable[[int], None]) -> None:
        """Make and save the LoRAs of some concepts."""
        with self.base.threads():
            all_updates = grow_loras(self.denoiser, self.layers, concepts, condition, self.recipe, on_samples)
        for concept, updates in zip(concepts, all_updates, strict=True):
            concept.save_lora(updates, self.base.component, self.metadata)

    def training(self, tree: str) -> TrainOptions:
        """How the expert is trained on the LoRAs."""
        base, recipe = self.base.base, self.recipe
        made = Provenance(
            GROWN,
            base.family,
            base.fingerprint,
            words=len(self.concepts) // self.options.loras_per_word,
            steps=recipe.steps,
            samples=recipe.samples_in_all,
        )
        return TrainOptions(tree=tree, like=self.options.like, provenance=made)


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
        run.make_pictures(progress)
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


def words_to_grow(options: GrowOptions) -> tuple[Word, ...]:
    """The words of ``--words``, ``--pictures`` or the shipped list; the first ``count`` of them.

    Raises:
        QueryError: the list cannot be read, or there are too few words.
    """
    own = words_of_folder(options.pictures) if options.pictures else options.words and read_words(options.words)
    words = own[: options.count] if own else shipped_words()[: options.count or DEFAULT_COUNT]
    if len(words) < MIN_WORDS:
        raise QueryError(
            f"words: expected at least {MIN_WORDS} for an expert, found {len(words)}; add some, or take the list that ships"
        )
    return words


def picture_seed(seed: int, word: str, number: int) -> int:
    """The seed of a word's picture, the same in every run with the seed ``seed``."""
    return (int.from_bytes(sha256(f"{word}\0{number}".encode()).digest()[:4]) + seed) % 2**32


def batches_of(items: Sequence[ItemT], size: int) -> Iterator[Sequence[ItemT]]:
    """Parts of a sequence, each of at most ``size`` items."""
    return (items[start : start + size] for start in range(0, len(items), size))


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
