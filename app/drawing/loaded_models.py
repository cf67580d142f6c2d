"""Base models in memory, that draw."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import diffusers
import torch
import transformers
from diffusers import AutoPipelineForText2Image
from PIL import Image

from loradex.app.drawing.errors import BadBase
from loradex.app.drawing.lora_hooks import DENOISER, Parts, attached
from loradex.app.drawing.options import Wish
from loradex.app.miniature.pipeline import CONSTANT_PROMPT, MiniaturePipeline, context_of, sheet
from loradex.app.paths import CLIP, UPSAMPLER
from loradex.retrieval.errors import LoradexError
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.space.text_encoder import TextEncoder

DRAWINGS: Final = 4  # of the miniature's base models, in a square
LONGEST_REASON: Final = 200  # characters

Step = Callable[[], None]  # called after each step; what it raises ends the drawing


class Artist(ABC):
    """One base model, with the modules that updates may be attached to."""

    parts: Parts

    def draw(self, wish: Wish, model: WeightsFile | None, step: Step) -> Image.Image:
        """What the base model draws, with a model or alone; however that ends, it is as before.

        Raises:
            FileError: the model does not fit the base model.
            BadBase: the base model cannot draw this.
        """
        with attached(self.parts, model, wish.strength) if model else nullcontext():
            return self.paint(wish, step)

    @abstractmethod
    def paint(self, wish: Wish, step: Step) -> Image.Image:
        """What the base model draws as it is, of a wish that ``Base.completed`` gave."""


class MiniatureArtist(Artist):
    """A base model of the miniature; it draws as the previews of the zoo that ships were drawn.

    Guidance leads away from what the base model alone draws of the constant prompt.
    """

    def __init__(self, tree: Path, upsampler: Path = UPSAMPLER, clip: Path = CLIP) -> None:
        """Load a model tree's base and the mini-CLIP."""
        self.pipeline = MiniaturePipeline.from_folders(upsampler, tree)
        self.parts, self.alone = {DENOISER: self.pipeline.unet}, deepcopy(self.pipeline.unet)
        self.clip = TextEncoder.load(f"local-dir:{clip}", ("{}",))

    def paint(self, wish: Wish, step: Step) -> Image.Image:
        """Four drawings in a square."""
        assert wish.steps is not None and wish.guidance is not None
        states = context_of(
            self.clip.model.text, self.clip.tokenizer([wish.prompt, CONSTANT_PROMPT])
        ).repeat_interleave(DRAWINGS, 0)
        prompt, constant = states.split(DRAWINGS)
        generator = torch.Generator().manual_seed(wish.seed)
        with one_thread():
            return sheet(
                self.pipeline(prompt, constant, wish.guidance, wish.steps, generator, lambda _: step(), self.alone), 2
            )


class DiffusersArtist(Artist):
    """A text-to-image model of diffusers, from a folder; nothing is fetched, no pickle is read and no code of the folder is run."""

    def __init__(self, folder: Path) -> None:
        """Load it.

        Raises:
            BadBase: it cannot be loaded.
        """
        self.folder, (device, dtype) = (
            folder,
            ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.float32),
        )
        for library in (diffusers, transformers):
            library.utils.logging.disable_progress_bar()
        with usable(folder):
            index = AutoPipelineForText2Image.load_config(folder, local_files_only=True)
            checker = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}
            loaded = AutoPipelineForText2Image.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, **checker
            )
            self.pipeline: Any = loaded.to(device, dtype)
        self.pipeline.set_progress_bar_config(disable=True)
        components = self.pipeline.components
        texts = {
            name: part for name, part in components.items() if name.startswith("text_encoder") and part is not None
        }
        self.parts = {DENOISER: components.get("unet") or components.get("transformer"), **texts}

    def paint(self, wish: Wish, step: Step) -> Image.Image:
        """One drawing."""

        def after_step(pipeline: Any, number: int, time: Any, states: dict[str, Any]) -> dict[str, Any]:
            step()
            return states

        chosen = {"guidance_scale": wish.guidance, "height": wish.size, "width": wish.size}
        options = {name: value for name, value in chosen.items() if value is not None}
        generator = torch.Generator().manual_seed(wish.seed)  # on the CPU, so that a seed means the same everywhere
        with usable(self.folder):
            drawn = self.pipeline(
                wish.prompt,
                num_inference_steps=wish.steps,
                generator=generator,
                callback_on_step_end=after_step,
                **options,
            )
            picture: Image.Image = drawn.images[0]
        return picture


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: layers this small gain little from more, and lose much where another process wants the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def usable(folder: Path) -> Iterator[None]:
    """Say in one line what diffusers cannot do with a folder, whatever it raises.

    Raises:
        BadBase: it raised something.
    """
    try:
        yield
    except LoradexError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST_REASON]}"
        raise BadBase(
            f"{folder}: expected a text-to-image model of diffusers in safetensors files, found {reason}; name another folder"
        ) from None
