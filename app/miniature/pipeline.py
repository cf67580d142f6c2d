"""The miniature's base models as diffusers pipelines that take LoRAs and draw."""

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

CONTEXT: Final = 16  # tokens of the text states that the base models attend to
CONSTANT_PROMPT: Final = "an icon"  # what every LoRA of the fleets was trained with
SMALL: Final = 32  # pixels a side of what the base models draw
MEAN, DEVIATION = 0.45, 0.62  # of the drawings' pixels in [-1, 1]


class Upsampler(ModelMixin, ConfigMixin):
    """Small pictures (n, 3, 32, 32) in [-1, 1] -> large ones (n, 3, 64, 64): what a few residual blocks add to bilinear resizing."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int = 48, depth: int = 6) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(depth)
        )
        self.last = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, small: Tensor) -> Tensor:
        """Pictures of twice the size."""
        states = self.first(small)
        for block in self.blocks:
            states = states + block(F.silu(states))
        return F.pixel_shuffle(self.last(states), 2) + F.interpolate(small, scale_factor=2, mode="bilinear")


class MiniaturePipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin):
    """Draws 64 x 64 pictures from text states (n, 16, 128) of the mini-CLIP.

    ``load_lora_weights`` loads a fleet LoRA, as on any Stable Diffusion pipeline of diffusers.
    """

    text_encoder = None  # diffusers' LoRA loader asks for it; prompts come as text states

    def __init__(self, upsampler: Upsampler, unet: UNet2DConditionModel, scheduler: DDIMScheduler) -> None:
        """Register the parts."""
        super().__init__()
        self.register_modules(upsampler=upsampler, unet=unet, scheduler=scheduler)

    @classmethod
    def from_folders(cls, upsampler: Path, tree: Path) -> "MiniaturePipeline":
        """Load from the folders that the build writes."""
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
        generator: torch.Generator | None = None,
        callback: Callable[[int], None] = lambda step: None,
        alone: UNet2DConditionModel | None = None,
    ) -> list[Image.Image]:
        """One picture for each row of ``prompt_embeds``.

        Guidance leads away from ``negative_prompt_embeds``, of the same shape, as ``alone`` draws them: a copy of the base model that no LoRA
        was loaded into, where one is given.
        """
        config = self.unet.config
        drawn = randn_tensor(
            (len(prompt_embeds), config.in_channels, config.sample_size, config.sample_size), generator=generator
        )
        self.scheduler.set_timesteps(num_inference_steps)
        for step, time in enumerate(self.scheduler.timesteps):
            guess = self.unet(drawn, time, prompt_embeds).sample
            if negative_prompt_embeds is not None:
                without = (alone or self.unet)(drawn, time, negative_prompt_embeds).sample
                guess = without + guidance_scale * (guess - without)
            drawn = self.scheduler.step(guess, time, drawn).prev_sample
            callback(step)
        pixels = self.upsampler(unfold(drawn)).clamp(-1, 1).add(1).mul(127.5).round().byte()
        return [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]


def fold(small: Tensor, side: int) -> Tensor:
    """Pictures (n, 3, 32, 32) in [-1, 1] as a base model takes them: standardised, (n, 3 * f * f, side, side) with f = 32 / side."""
    return F.pixel_unshuffle((small - MEAN) / DEVIATION, SMALL // side).contiguous(memory_format=torch.channels_last)


def unfold(folded: Tensor) -> Tensor:
    """What ``fold`` was given."""
    return F.pixel_shuffle(folded, SMALL // folded.shape[-1]) * DEVIATION + MEAN


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
