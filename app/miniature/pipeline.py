"""The miniature's base models as diffusers pipelines that take LoRAs and draw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

CONTEXT: Final = 16  # tokens of the text states that the base models attend to
CONSTANT_PROMPT: Final = "an icon"  # what every LoRA of the fleets was trained with


class MiniaturePipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin):
    """Draws 64 x 64 pictures from text states (n, 16, 128) of the mini-CLIP.

    ``load_lora_weights`` loads a fleet LoRA, as on any Stable Diffusion pipeline of diffusers.
    """

    text_encoder = None  # diffusers' LoRA loader asks for it; prompts come as text states

    def __init__(self, vae: AutoencoderKL, unet: UNet2DConditionModel, scheduler: DDIMScheduler) -> None:
        """Register the parts; the autoencoder works on pictures folded to 32 x 32 x 12."""
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler)

    @classmethod
    def from_folders(cls, vae: Path, tree: Path) -> "MiniaturePipeline":
        """Load from the folders that the build writes."""
        unet = UNet2DConditionModel.from_pretrained(tree / "unet").float().eval()
        scheduler = DDIMScheduler.from_pretrained(tree / "scheduler", timestep_spacing="trailing")
        return cls(AutoencoderKL.from_pretrained(vae).float().eval(), unet, scheduler)

    @torch.inference_mode()
    def __call__(
        self,
        prompt_embeds: Tensor,
        negative_prompt_embeds: Tensor | None = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 25,
        generator: torch.Generator | None = None,
        callback: Callable[[int], None] = lambda step: None,
    ) -> list[Image.Image]:
        """One picture for each row of ``prompt_embeds``; guidance wants ``negative_prompt_embeds`` of the same shape."""
        config = self.unet.config
        shape = (len(prompt_embeds), config.in_channels, config.sample_size, config.sample_size)
        latents = randn_tensor(shape, generator=generator)
        self.scheduler.set_timesteps(num_inference_steps)
        for step, time in enumerate(self.scheduler.timesteps):
            guess = self.unet(latents, time, prompt_embeds).sample
            if negative_prompt_embeds is not None and guidance_scale != 1:
                without = self.unet(latents, time, negative_prompt_embeds).sample
                guess = without + guidance_scale * (guess - without)
            latents = self.scheduler.step(guess, time, latents).prev_sample
            callback(step)
        return self.decode(latents)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of standardised latents (n, 16, 8, 8)."""
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.vae.config.latents_mean, self.vae.config.latents_std))
        folded = self.vae.decode(latents * std + mean).sample
        pixels = F.pixel_shuffle(folded, 2).clamp(-1, 1).add(1).mul(127.5).round().byte()
        return [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]


def text_states(tower: Any, tokens: Tensor) -> Tensor:
    """Hidden states (n, length, 128) of open_clip's text tower for tokens cut to any length; attention looks back only."""
    length = tokens.shape[1]
    embedded = tower.token_embedding(tokens) + tower.positional_embedding[:length]
    return tower.ln_final(tower.transformer(embedded, attn_mask=tower.attn_mask[:length, :length]))


@torch.inference_mode()
def context_of(tower: Any, tokens: Tensor) -> Tensor:
    """Text states (n, 16, 128) as the base models attend to them; ``tower`` is the mini-CLIP's text tower."""
    return text_states(tower, tokens[:, :CONTEXT])


def sheet(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures of one size side by side, in rows."""
    width, height = pictures[0].size
    made = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for place, picture in enumerate(pictures):
        made.paste(picture, (place % columns * width, place // columns * height))
    return made
