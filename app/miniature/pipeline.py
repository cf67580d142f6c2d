"""The base models of the miniature as diffusers pipelines that load LoRAs and draw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, DDIMScheduler, DiffusionPipeline, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

CONTEXT_LENGTH: Final = 16  # tokens of a prompt that the base models attend to
CONSTANT_PROMPT: Final = "an icon"  # that every LoRA of the fleets was trained with
IMAGE_SIZE: Final = 32  # pixels a side that the base models draw, before upsampling
MEAN, STD = 0.45, 0.62  # of the pixels of the training images, in [-1, 1]


class Upsampler(ModelMixin, ConfigMixin):
    """Doubles the size of images: (n, 3, 32, 32) in [-1, 1] -> (n, 3, 64, 64).

    A few residual blocks predict the difference to bilinear resizing.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int = 48, depth: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(depth)
        )
        self.last = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return images of twice the size."""
        states = self.first(images)
        for block in self.blocks:
            states = states + block(F.silu(states))
        return F.pixel_shuffle(self.last(states), 2) + F.interpolate(images, scale_factor=2, mode="bilinear")


class MiniaturePipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin):
    """Draws 64 x 64 images from prompt embeddings (n, 16, 128) of the mini-CLIP.

    ``load_lora_weights`` loads a LoRA of the miniature, as on any Stable Diffusion pipeline of diffusers.
    """

    text_encoder = None  # read by diffusers' LoRA loader; the pipeline takes prompt embeddings

    def __init__(self, upsampler: Upsampler, unet: UNet2DConditionModel, scheduler: DDIMScheduler) -> None:
        """Register the modules."""
        super().__init__()
        self.register_modules(upsampler=upsampler, unet=unet, scheduler=scheduler)

    @classmethod
    def from_folders(cls, upsampler: Path, tree: Path) -> "MiniaturePipeline":
        """Load the upsampler and the base model of a model tree from the folders that the build writes."""
        unet = UNet2DConditionModel.from_pretrained(tree / "unet").float().eval()
        scheduler = DDIMScheduler.from_pretrained(tree / "scheduler", timestep_spacing="trailing")
        return cls(Upsampler.from_pretrained(upsampler).float().eval(), unet, scheduler)

    @torch.inference_mode()
    def __call__(
        self,
        prompt_embeds: Tensor,
        negative_prompt_embeds: Tensor | None = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 25,
        generator: torch.Generator | list[torch.Generator] | None = None,
        callback: Callable[[int], None] = lambda step: None,
        negative_unet: UNet2DConditionModel | None = None,
    ) -> list[Image.Image]:
        """Draw one image for each row of ``prompt_embeds``.

        Guidance leads away from what ``negative_unet`` (default: the pipeline's own UNet) predicts for
        ``negative_prompt_embeds``: pass a copy of the UNet that no LoRA was loaded into. ``callback`` is called after
        each step with its number.
        """
        config = self.unet.config
        latents = randn_tensor(
            (len(prompt_embeds), config.in_channels, config.sample_size, config.sample_size), generator=generator
        )
        self.scheduler.set_timesteps(num_inference_steps)
        for step, time in enumerate(self.scheduler.timesteps):
            prediction = self.unet(latents, time, prompt_embeds).sample
            if negative_prompt_embeds is not None:
                negative = (negative_unet or self.unet)(latents, time, negative_prompt_embeds).sample
                prediction = negative + guidance_scale * (prediction - negative)
            latents = self.scheduler.step(prediction, time, latents).prev_sample
            callback(step)
        pixels = self.upsampler(from_latents(latents)).clamp(-1, 1).add(1).mul(127.5).round().byte()
        return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]


def to_latents(images: Tensor, side: int) -> Tensor:
    """Standardise images (n, 3, 32, 32) in [-1, 1] and unshuffle their pixels to a base model's input.

    Returns:
        Tensor of shape (n, 3 * f * f, side, side) with f = 32 / side.
    """
    return F.pixel_unshuffle((images - MEAN) / STD, IMAGE_SIZE // side).contiguous(memory_format=torch.channels_last)


def from_latents(latents: Tensor) -> Tensor:
    """Invert ``to_latents``."""
    return F.pixel_shuffle(latents, IMAGE_SIZE // latents.shape[-1]) * STD + MEAN


def text_hidden_states(tower: Any, tokens: Tensor) -> Tensor:
    """Return the last hidden states (n, length, 128) of open_clip's text tower.

    The tokens may be cut to any length: attention is causal, so that later tokens do not change earlier states.
    """
    length = tokens.shape[1]
    embedded = tower.token_embedding(tokens) + tower.positional_embedding[:length]
    return tower.ln_final(tower.transformer(embedded, attn_mask=tower.attn_mask[:length, :length]))


@torch.inference_mode()
def embed_prompts(tower: Any, tokens: Tensor) -> Tensor:
    """Return prompt embeddings (n, 16, 128) for the base models; ``tower`` is the mini-CLIP's text tower."""
    return text_hidden_states(tower, tokens[:, :CONTEXT_LENGTH])


def image_grid(images: list[Image.Image], columns: int) -> Image.Image:
    """Arrange images of one size in rows."""
    width, height = images[0].size
    grid = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    for number, image in enumerate(images):
        grid.paste(image, (number % columns * width, number // columns * height))
    return grid
