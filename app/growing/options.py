"""The options and the answer of ``loradex grow``."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loradex.app.drawing.options import check_integer

MAX_PICTURES: Final = 8  # of a LoRA
MAX_DRAWS: Final = 16  # for each picture
MAX_LORAS: Final = 100  # of a word
MAX_STEPS: Final = 2000
MAX_SAMPLES: Final = 1024
MAX_RANK: Final = 64
MAX_COUNT: Final = 1_000_000  # words
MAX_BATCH: Final = 4096

GrowProgress = Callable[[str, int, int], None]  # the step, how much of it is done, how much there is


def no_progress(step: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class GrowOptions:
    """How to grow an expert; the defaults are those that did best on validation concepts (docs/experiments.md).

    Attributes:
        words: a list of words; by default the one that ships.
        count: how many of the words; by default 1,000 of the list that ships, or all of one's own.
        pictures: a folder with a folder of pictures for each concept, in place of drawings.
        pictures_per_lora: how many pictures each LoRA is made of.
        draws: how many the base model draws for each of them, of which those that show the word best are kept.
        loras_per_word: how many LoRAs of each word, each with pictures of its own.
        steps: of the training of each LoRA; 0 takes the gradient alone.
        samples: noisy pictures of each concept: in a step of training, or in all for a gradient.
        rank: of the LoRAs; a gradient is cut to 16 if none is given.
        layers: the ends of the names of the layers that are grown.
        size: of pictures, in pixels; by default the base model's own.
        batch: noisy pictures in memory at once; by default as many as the device should hold.
        tree: the name of the model tree; by default the family.
        folder: where words become LoRAs; by default in the user's data.
        like: a folder of LoRAs of the same base model whose means are taken over.
        device: by default CUDA if there is one.
        seed: of pictures and noise.
    """

    words: Path | None = None
    count: int | None = None
    pictures: Path | None = None
    pictures_per_lora: int = 3
    draws: int = 2
    loras_per_word: int = 1
    steps: int = 40
    samples: int | None = None
    rank: int | None = None
    layers: tuple[str, ...] | None = None
    size: int | None = None
    batch: int | None = None
    tree: str | None = None
    folder: Path | None = None
    like: Path | None = None
    device: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            QueryError: one is out of its range.
        """
        ranges = {
            "--pictures-per-lora": (self.pictures_per_lora, 1, MAX_PICTURES),
            "--draws": (self.draws, 1, MAX_DRAWS),
            "--loras-per-word": (self.loras_per_word, 1, MAX_LORAS),
            "--steps": (self.steps, 0, MAX_STEPS),
            "--samples": (self.samples, 1, MAX_SAMPLES),
            "--rank": (self.rank, 1, MAX_RANK),
            "--count": (self.count, 1, MAX_COUNT),
            "--batch": (self.batch, 1, MAX_BATCH),
        }
        for name, (value, least, most) in ranges.items():
            if value is not None:
                check_integer(name, value, least, most)


@dataclass(frozen=True, slots=True)
class GrowPlan:
    """What growing will take, measured on one concept.

    Attributes:
        loras: in all; ``to_draw`` pictures and ``to_grow`` LoRAs are still to be made.
        layers: that are grown.
        draw_s: seconds a picture.
        sample_s: seconds a noisy picture with its gradient.
        hours: for what is still to be made, without the fit of the expert.
        bytes: of what is still to be made.
        free_bytes: on the disk of the folder.
        peak_bytes: of memory while one concept was grown: of the GPU, or else of the process; None where
            the system does not say.
    """

    base: str
    family: str
    device: str
    folder: str
    loras: int
    to_draw: int
    to_grow: int
    layers: int
    draw_s: float
    sample_s: float
    hours: float
    bytes: int
    free_bytes: int
    peak_bytes: int | None

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex grow --dry-run --json``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class GrowAnswer:
    """The expert that was grown.

    Attributes:
        expert: the path of its checkpoint.
        folder: of the LoRAs and pictures that it was grown from.
        contact_sheet: a picture of what the base model drew; None with pictures of the person's own.
        words, loras: how many.
        layers: the number of layers that it reads.
        validation: metrics on the LoRAs grown of validation words, by which it is calibrated.
        took_s: seconds of each step of this run.
    """

    expert: str
    tree: str
    family: str
    space: str
    folder: str
    contact_sheet: str | None
    words: int
    loras: int
    layers: int
    validation: dict[str, float]
    took_s: dict[str, float]

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex grow --json``."""
        return asdict(self)
