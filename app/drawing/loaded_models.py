"""Base models, loaded, that draw with or without a model."""

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
from loradex.app.drawing.lora_hooks import DENOISER, Components, apply_updates
from loradex.app.drawing.options import DrawOptions
from loradex.app.miniature.pipeline import CONSTANT_PROMPT, MiniaturePipeline, embed_prompts, image_grid
from loradex.app.paths import CLIP, UPSAMPLER
from loradex.retrieval.base_model import find_weights
from loradex.retrieval.errors import LoradexError
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.space.text_encoder import TextEncoder

IMAGES_PER_DRAWING: Final = 4  # of the miniature, as their images are small; in a square
MAX_REASON_LENGTH: Final = 200  # characters
ONE_FILE: Final = (
    "expected a folder of diffusers to draw with, found a checkpoint in one file; save it as a folder with diffusers "
    "(StableDiffusionPipeline or StableDiffusionXLPipeline: from_single_file, then save_pretrained)"
)

StepCallback = Callable[[], None]  # called after each denoising step; an exception that it raises ends the drawing


class LoadedBaseModel(ABC):
    """A base model in memory.

    Attributes:
        components: its modules that take updates, by component.
    """

    components: Components

    def draw(self, options: DrawOptions, model: WeightsFile | None, on_step: StepCallback) -> Image.Image:
        """Draw with a model's updates added, or without; afterwards the base model is as before, even if this fails.

        Raises:
            FileError: the model does not fit the base model.
            BadBase: the base model cannot draw this.
        """
        with apply_updates(self.components, model, options.strength) if model else nullcontext():
            return self.generate(options, on_step)

    @abstractmethod
    def generate(self, options: DrawOptions, on_step: StepCallback) -> Image.Image:
        """Draw with the base model as it is; the options are complete (``BaseModel.complete_options``)."""


class MiniatureBaseModel(LoadedBaseModel):
    """A base model of the miniature; it draws in the way in which the previews of the shipped zoo were drawn.

    Guidance leads away from what the base model without any LoRA predicts for the constant prompt.
    """

    def __init__(self, tree: Path, upsampler: Path = UPSAMPLER, clip: Path = CLIP) -> None:
        """Load the base model of a model tree, the upsampler and the mini-CLIP."""
        self.pipeline = MiniaturePipeline.from_folders(upsampler, tree)
        self.components, self.negative_unet = {DENOISER: self.pipeline.unet}, deepcopy(self.pipeline.unet)
        self.clip = TextEncoder.load(f"local-dir:{clip}", ("{}",))

    def generate(self, options: DrawOptions, on_step: StepCallback) -> Image.Image:
        """Draw four images in a square."""
        assert options.steps is not None and options.guidance is not None
        embeds = embed_prompts(
            self.clip.model.text, self.clip.tokenizer([options.prompt, CONSTANT_PROMPT])
        ).repeat_interleave(IMAGES_PER_DRAWING, 0)
        prompt_embeds, constant_embeds = embeds.split(IMAGES_PER_DRAWING)
        with one_thread():
            images = self.pipeline(
                prompt_embeds,
                constant_embeds,
                options.guidance,
                options.steps,
                torch.Generator().manual_seed(options.seed),
                lambda _: on_step(),
                self.negative_unet,
            )
        return image_grid(images, 2)


class DiffusersBaseModel(LoadedBaseModel):
    """A text-to-image model in a folder of diffusers.

    Nothing is downloaded, no pickle is read, and no code in the folder is run.
    """

    def __init__(self, folder: Path) -> None:
        """Load the model.

        Raises:
            BadBase: it cannot be loaded.
        """
        self.folder = folder
        if folder.is_file():
            raise BadBase(f"{folder}: {ONE_FILE}")
        device, dtype = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.float32)
        for library in (diffusers, transformers):
            library.utils.logging.disable_progress_bar()
        with bad_base_on_error(folder):
            index = AutoPipelineForText2Image.load_config(folder, local_files_only=True)
            checker = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in index else {}
            loaded = AutoPipelineForText2Image.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, variant=variant_of(folder), **checker
            )
            self.pipeline: Any = loaded.to(device, dtype)
        self.pipeline.set_progress_bar_config(disable=True)
        components = self.pipeline.components
        text_encoders = {
            name: module
            for name, module in components.items()
            if name.startswith("text_encoder") and module is not None
        }
        self.components = {DENOISER: components.get("unet") or components.get("transformer"), **text_encoders}

    def generate(self, options: DrawOptions, on_step: StepCallback) -> Image.Image:
        """Draw one image."""

        def callback_on_step_end(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step()
            return tensors

        optional = {"guidance_scale": options.guidance, "height": options.size, "width": options.size}
        arguments = {name: value for name, value in optional.items() if value is not None}
        generator = torch.Generator().manual_seed(options.seed)  # on the CPU: a seed gives the same noise on any device
        with bad_base_on_error(self.folder):
            output = self.pipeline(
                options.prompt,
                num_inference_steps=options.steps,
                generator=generator,
                callback_on_step_end=callback_on_step_end,
                **arguments,
            )
            image: Image.Image = output.images[0]
        return image


def variant_of(folder: Path) -> str | None:
    """The variant of which a folder has weights that it lacks without a variant; None if there are none such.

    diffusers takes a component that lacks the variant without one.
    """
    found = filter(None, (find_weights(component) for component in sorted(folder.iterdir()) if component.is_dir()))
    return next((weights.variant for weights in found if weights.variant), None)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: layers this small gain little from more, and lose much on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def bad_base_on_error(folder: Path) -> Iterator[None]:
    """Turn any error of diffusers into a BadBase with a one-line message; Loradex's own errors pass unchanged.

    Raises:
        BadBase: diffusers raised an error.
    """
    try:
        yield
    except LoradexError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:MAX_REASON_LENGTH]}"
        raise BadBase(
            f"{folder}: expected a text-to-image model of diffusers in safetensors files, found {reason}; name another folder"
        ) from None
