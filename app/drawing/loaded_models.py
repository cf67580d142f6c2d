"""Base models, loaded, that draw with or without a model."""

import warnings
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
from loradex.app.drawing.one_file import load_checkpoint
from loradex.app.drawing.options import DrawOptions
from loradex.app.miniature.pipeline import CONSTANT_PROMPT, MiniaturePipeline, embed_prompts, image_grid
from loradex.app.paths import CLIP, UPSAMPLER
from loradex.retrieval.base_model import BaseModel, find_weights
from loradex.retrieval.errors import LoradexError
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.space.text_encoder import TextEncoder

IMAGES_PER_DRAWING: Final = 4  # of the miniature, as their images are small; in a square
MAX_REASON_LENGTH: Final = 200  # characters

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
    """A text-to-image model in a folder of diffusers, or in one file.

    Nothing is downloaded, no pickle is read, and no code beside the weights is run.

    Attributes:
        path: of the folder or file.
        pipeline: the pipeline of diffusers.
        device, dtype: of its weights.
    """

    def __init__(self, path: Path, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Load the model.

        Args:
            path: of the folder or file.
            device: of the weights; CUDA if there is one, else the CPU, by default.
            dtype: of the weights; float16 on CUDA and float32 elsewhere by default. On a CPU bfloat16 halves the
                memory.

        Raises:
            BadBase: it cannot be loaded.
            CheckpointError, FileError: a checkpoint in one file is of a family that is not loaded from one, lacks
                parts, or cannot be read.
        """
        self.path = path
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.dtype = dtype or (torch.float16 if self.device.type == "cuda" else torch.float32)
        for library in (diffusers, transformers):
            library.utils.logging.disable_progress_bar()
        with bad_base_on_error(path):
            loaded = load_checkpoint(BaseModel.open(path), self.dtype) if path.is_file() else self.load_folder()
            self.pipeline: Any = loaded.to(self.device)
        self.pipeline.set_progress_bar_config(disable=True)
        components = self.pipeline.components
        text_encoders = {
            name: module
            for name, module in components.items()
            if name.startswith("text_encoder") and module is not None
        }
        self.components = {DENOISER: components.get("unet") or components.get("transformer"), **text_encoders}

    def load_folder(self) -> Any:
        """Load a pipeline from a folder of diffusers, on the CPU."""
        index = AutoPipelineForText2Image.load_config(self.path, local_files_only=True)
        without: dict[str, Any] = {name: None for name, value in index.items() if value == [None, None]}
        if "safety_checker" in index:
            without |= {"safety_checker": None, "requires_safety_checker": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch_dtype is the only name that diffusers 0.38 knows
            return AutoPipelineForText2Image.from_pretrained(
                self.path,
                local_files_only=True,
                use_safetensors=True,
                variant=variant_of(self.path),
                torch_dtype=self.dtype,
                **without,
            )

    def release(self, *names: str) -> None:
        """Free the memory of components, such as ``text_encoder``; what needs them fails from now on."""
        for name in names:
            setattr(self.pipeline, name, None)
        self.components = {name: module for name, module in self.components.items() if name not in names}
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def generate(self, options: DrawOptions, on_step: StepCallback) -> Image.Image:
        """Draw one image."""

        def callback_on_step_end(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_step()
            return tensors

        optional = {"guidance_scale": options.guidance, "height": options.size, "width": options.size}
        arguments = {name: value for name, value in optional.items() if value is not None}
        generator = torch.Generator().manual_seed(options.seed)  # on the CPU: a seed gives the same noise on any device
        with bad_base_on_error(self.path):
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
def bad_base_on_error(path: Path) -> Iterator[None]:
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
            f"{path}: expected a text-to-image model of diffusers in safetensors files, found {reason}; name another folder"
        ) from None
