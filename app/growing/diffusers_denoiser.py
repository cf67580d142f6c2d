"""Base models of diffusers as growing sees them: denoisers with their training loss."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from loradex.app.drawing.base_models import DIFFUSERS_DEFAULTS
from loradex.app.drawing.errors import BadBase
from loradex.app.drawing.loaded_models import DiffusersBaseModel, bad_base_on_error
from loradex.app.drawing.lora_hooks import DENOISER
from loradex.app.growing.denoiser import Conditions, Denoiser
from loradex.app.growing.diffusers_families import family_of
from loradex.app.growing.noise import schedule_of
from loradex.retrieval.errors import QueryError

KNOWN: Final = "SD 1, SD 2, SDXL, SD 3 or Flux"


class DiffusersDenoiser(Denoiser):
    """A pipeline of diffusers: the U-Net of SD 1, SD 2 or SDXL, or the transformer of SD 3 or Flux.

    Attributes:
        device: of its weights and of all results.
        steps: of a drawing.
    """

    def __init__(self, loaded: DiffusersBaseModel, size: int | None = None, steps: int | None = None) -> None:
        """Freeze a base model that is in memory.

        torch's own function computes attention in pieces on every device; slicing it would only be slower.

        Args:
            loaded: the base model, which is changed: its weights take no gradients, and activations are computed again
                in backward passes.
            size: the side of pictures in pixels; the one that the model was trained with by default.
            steps: of a drawing; those of ``loradex draw`` by default.

        Raises:
            BadBase: its loss is not known.
            QueryError: it cannot take pictures of this size.
        """
        self.loaded, self.path, self.pipeline, self.device = loaded, loaded.path, loaded.pipeline, loaded.device
        module: Any = loaded.components[DENOISER]
        self.module = module
        self.steps = steps or DIFFUSERS_DEFAULTS.steps
        family, schedule = family_of(module), schedule_of(self.pipeline.scheduler)
        if family is None:
            raise self.unknown(f"a {type(module).__name__}")
        if schedule is None:
            raise self.unknown(f"its scheduler {type(self.pipeline.scheduler).__name__}")
        channels = self.pipeline.vae.config.latent_channels * family.latent_channels
        other = family.check(self.pipeline, module)
        if module.config.in_channels != channels:
            other = f"one that takes {module.config.in_channels} channels (inpainting, or another task)"
        if other:
            raise self.unknown(other)
        self.family, self.schedule = family, schedule
        self.size = size or self.native_size
        multiple = 2 * self.pipeline.vae_scale_factor
        if self.size < multiple or self.size % multiple:
            raise QueryError(f"--size: expected a multiple of {multiple} pixels, found {self.size}; choose another")
        for part in self.pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        module.enable_gradient_checkpointing()
        self.pipeline.vae.enable_slicing()

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        size: int | None = None,
    ) -> "DiffusersDenoiser":
        """Load a folder of diffusers, or a checkpoint in one file.

        On CUDA weights are bfloat16 by default where the device computes in it: gradients are too small for float16.

        Raises:
            BadBase: it cannot be loaded, or its loss is not known.
            CheckpointError, FileError: as ``DiffusersBaseModel``.
            QueryError: it cannot take pictures of this size.
        """
        cuda = torch.cuda.is_available() and (device is None or torch.device(device).type == "cuda")
        if dtype is None and cuda and torch.cuda.is_bf16_supported(including_emulation=False):
            dtype = torch.bfloat16
        return cls(DiffusersBaseModel(path, device, dtype), size)

    @property
    def native_size(self) -> int:
        """The side in pixels of the pictures with which the model was trained."""
        module: Any = self.module
        side = module.config.get("sample_size") or getattr(self.pipeline, "default_sample_size", None)
        side = max(side) if isinstance(side, list | tuple) else side
        return int(side or 64) * self.pipeline.vae_scale_factor

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoiser's weights."""
        return self.loaded.dtype

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Latents (n, channels, side, side), float32: the mean that the VAE gives; pictures are cropped to squares."""
        vae = self.pipeline.vae
        shift, scale = getattr(vae.config, "shift_factor", None) or 0.0, vae.config.scaling_factor
        square = (self.size, self.size)
        latents = []
        with enough_range(vae):
            for picture in pictures:
                fitted = ImageOps.fit(picture.convert("RGB"), square, Image.Resampling.LANCZOS)
                pixels = torch.from_numpy(np.asarray(fitted).copy()).permute(2, 0, 1)[None] / 127.5 - 1
                latents.append(vae.encode(pixels.to(self.device, vae.dtype)).latent_dist.mode().float())
        return (torch.cat(latents) - shift) * scale

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """What the pipeline gives its model for prompts."""
        with bad_base_on_error(self.path):
            return Conditions(self.family.encode(self.pipeline, prompts, self.device))

    def losses(self, latents: Tensor, conditions: Conditions, times: Tensor, noise: Tensor) -> Tensor:
        """Mean squared errors (n,) of what the model predicts, without weights for times; float32."""
        noisy, timesteps, target = self.schedule.mix(latents.float(), noise.float(), times.to(self.device))
        prompts = {name: tensor.to(self.device, self.dtype) for name, tensor in conditions.tensors.items()}
        predicted = self.family.predict(self.pipeline, self.module, noisy.to(self.dtype), timesteps, prompts)
        return F.mse_loss(predicted.float(), target, reduction="none").flatten(1).mean(1)

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], on_share: Callable[[float], None]
    ) -> list[Image.Image]:
        """Draw all at once by the pipeline, with its own guidance; text encoders and VAE have to be there still."""

        def callback_on_step_end(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            on_share((step + 1) / len(pipeline.scheduler.timesteps))
            return tensors

        generators = [torch.Generator().manual_seed(seed) for seed in seeds]  # on the CPU: the same on any device
        with bad_base_on_error(self.path):
            images: list[Image.Image] = self.pipeline(
                list(prompts),
                num_inference_steps=self.steps,
                height=self.size,
                width=self.size,
                generator=generators,
                callback_on_step_end=callback_on_step_end,
            ).images
        return images

    def release_drawing(self) -> None:
        """Free the memory of the text encoders; from now on prompts cannot be encoded, and nothing drawn."""
        self.loaded.release(*(name for name in self.pipeline.components if name.startswith("text_encoder")))

    def unknown(self, found: str) -> BadBase:
        """The error of a model whose loss is not known."""
        return BadBase(
            f"{self.path}: expected {KNOWN}, whose training loss is known, found {found}; grow another base model"
        )


@contextmanager
def enough_range(vae: Any) -> Iterator[None]:
    """Let a VAE whose numbers are too large for float16 compute in float32."""
    before = vae.dtype
    upcast = before == torch.float16 and vae.config.get("force_upcast", False)
    if upcast:
        vae.float()
    try:
        yield
    finally:
        if upcast:
            vae.to(before)
