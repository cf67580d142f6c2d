"""A run of growing: its words, their pictures and their LoRAs, each made where it is missing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from PIL import Image

from loradex.app.experts.training_options import TrainOptions, check_options
from loradex.app.growing.choosing import choose_pictures
from loradex.app.growing.denoiser import Conditions, Denoiser
from loradex.app.growing.errors import GrowError
from loradex.app.growing.folder import Concept, concepts_in, save_picture
from loradex.app.growing.layers import ATTENTION, linear_layers
from loradex.app.growing.loading import GrowBase
from loradex.app.growing.lora_growing import (
    GRADIENT_RANK,
    GRADIENT_RIDGE,
    GRADIENT_SAMPLES,
    STEP_SAMPLES,
    TRAINED_RANK,
    LoraRecipe,
    grow_loras,
)
from loradex.app.growing.options import GrowOptions, GrowProgress
from loradex.app.growing.own_pictures import copy_pictures, words_of_folder
from loradex.app.growing.word_list import Word, read_words, shipped_words
from loradex.app.paths import user_data_dir
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import QueryError
from loradex.retrieval.probex.provenance import GROWN, Provenance
from loradex.retrieval.training.labelled_loras import GROWN_KEY

ItemT = TypeVar("ItemT")

DRAWN_AT_ONCE: Final = 60  # pictures of the miniature; elsewhere as many as noisy ones
MIN_WORDS: Final = 30
DEFAULT_COUNT: Final = 1000  # of the list that ships


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
        training = TrainOptions(tree=options.tree, device=options.device)
        check_options(training)
        base = GrowBase.find(name)
        words = words_to_grow(options)
        device = "cpu" if base.is_miniature else training.probe_device
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
        return {"base_model": self.base.base.fingerprint, GROWN_KEY: f"{steps} steps" if steps else "gradient"}

    @property
    def settings(self) -> dict[str, Any]:
        """What the files of the folder depend on."""
        return {
            "base": self.base.base.fingerprint,
            "family": self.base.base.family,
            "pictures per LoRA": self.options.pictures_per_lora,
            "draws": self.options.draws,
            "own pictures": str(self.options.pictures.absolute()) if self.options.pictures else None,
            "size": self.options.size,
            "steps": self.recipe.steps,
            "samples": self.recipe.samples,
            "rank": self.recipe.rank,
            "layers": self.options.layers,
            "seed": self.options.seed,
        }

    @property
    def drawings_per_lora(self) -> int:
        """How many pictures are drawn for a LoRA, of which some are kept."""
        return self.options.draws * self.options.pictures_per_lora

    @property
    def layers(self) -> dict[str, Any]:
        """The layers that are grown, by name."""
        return linear_layers(self.denoiser.module, self.options.layers or ATTENTION)

    def make_pictures(self, encoder: Encoder, progress: GrowProgress) -> None:
        """Draw the pictures of concepts that lack some, or copy a person's own."""
        if self.options.pictures:
            for done, concept in enumerate(self.concepts):
                progress("copying pictures", done, len(self.concepts))
                if not concept.pictures[0].is_file():
                    copy_pictures(self.options.pictures, concept)
            return
        total = len(self.concepts) * self.drawings_per_lora
        missing = [each for each in self.concepts if not all(path.is_file() for path in each.pictures)]
        for batch in batches_of(missing, max(self.drawn_at_once // self.drawings_per_lora, 1)):
            done = total - len(missing) * self.drawings_per_lora
            progress("drawing", done, total)
            images = self.draw(
                [
                    (each.word, each.first * self.options.draws + number)
                    for each in batch
                    for number in range(self.drawings_per_lora)
                ],
                scaled(lambda drawn: progress("drawing", int(drawn), total), done, 1),
            )
            chosen = choose_pictures(images, [each.word for each in batch], self.options.pictures_per_lora, encoder)
            for concept, pictures in zip(batch, chosen, strict=True):
                for picture, path in zip(pictures, concept.pictures, strict=True):
                    save_picture(picture, path)
            missing = missing[len(batch) :]

    @property
    def drawn_at_once(self) -> int:
        """How many pictures are drawn at once."""
        return DRAWN_AT_ONCE if self.base.is_miniature else self.recipe.batch

    def draw(
        self, pictures: Sequence[tuple[str, int]], on_drawn: Callable[[float], None] = lambda drawn: None
    ) -> list[Image.Image]:
        """Draw pictures of words, each by the number that it has among those of its word.

        ``on_drawn`` is called after each denoising step with how many pictures' worth of them are done.
        """
        images = list[Image.Image]()
        with self.base.threads():
            for batch in batches_of(pictures, self.drawn_at_once):
                seeds = [picture_seed(self.options.seed, word, number) for word, number in batch]
                on_share = scaled(on_drawn, len(images), len(batch))
                images += self.denoiser.draw([word for word, _ in batch], seeds, on_share)
        return images

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
            steps=recipe.steps,
            samples=recipe.samples_in_all,
        )
        settings = {} if recipe.steps else {"ridge": GRADIENT_RIDGE}
        return TrainOptions(tree=tree, like=self.options.like, settings=settings, provenance=made)


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


def scaled(report: Callable[[float], None], start: float, size: float) -> Callable[[float], None]:
    """A function that reports ``start`` and so many times ``size``."""
    return lambda share: report(start + share * size)


def batches_of(items: Sequence[ItemT], size: int) -> Iterator[Sequence[ItemT]]:
    """Parts of a sequence, each of at most ``size`` items."""
    return (items[start : start + size] for start in range(0, len(items), size))
