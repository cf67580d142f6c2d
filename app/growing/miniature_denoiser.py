"""The denoisers of the miniature."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DPMSolverMultistepScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from loradex.app.growing.denoiser import Conditions, Denoiser
from loradex.app.miniature.pipeline import (
    CONSTANT_PROMPT,
    IMAGE_SIZE,
    MiniaturePipeline,
    embed_prompts,
    to_latents,
)
from loradex.app.paths import CLIP, UPSAMPLER
from loradex.retrieval.space.text_encoder import TextEncoder

MAX_LOSS_WEIGHT: Final = 20.0  # of a time step, as the base models were trained
# of the second-order solver; its drawings are spread as those that the base models learnt from (docs/experiments.md)
STEPS: Final = 10
GUIDANCE: Final = 2.0
STATES: Final = "states"


class MiniatureDenoiser(Denoiser):
    """A base model of the miniature; it predicts the clean picture."""

    size = 2 * IMAGE_SIZE

    def __init__(self, tree: Path, upsampler: Path = UPSAMPLER, clip: Path = CLIP) -> None:
        """Load the base model of a model tree, the upsampler and the mini-CLIP."""
        self.pipeline = MiniaturePipeline.from_folders(upsampler, tree)
        self.pipeline.scheduler = DPMSolverMultistepScheduler.from_config(self.pipeline.scheduler.config)
        self.side: int = self.pipeline.unet.config.sample_size
        self.module: UNet2DConditionModel = self.pipeline.unet.requires_grad_(False)
        self.module.set_default_attn_processor()  # its gradients are faster on a CPU than those of the fused one
        self.module.to(memory_format=torch.channels_last)
        self.clip = TextEncoder.load(f"local-dir:{clip}", ("{}",))

    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Latents (n, channels, side, side): pictures of 32 x 32 pixels, unshuffled."""
        small = [picture.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX) for picture in pictures]
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in small])).permute(0, 3, 1, 2)
        return to_latents(pixels.float() / 127.5 - 1, self.side)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """The states (n, 16, 128) of the mini-CLIP's text tower."""
        states = embed_prompts(self.clip.model.text, self.clip.tokenizer(list(prompts)))
        return Conditions({STATES: states.clone()})  # no inference tensor, which takes no part in gradients

    def losses(self, latents: Tensor, conditions: Conditions, times: Tensor, noise: Tensor) -> Tensor:
        """Squared errors of the predicted pictures, weighted as errors of v (Salimans and Ho 2022) up to a bound."""
        kept = self.pipeline.scheduler.alphas_cumprod
        steps = (times * len(kept)).long()
        share = kept[steps][:, None, None, None]
        noisy = (share.sqrt() * latents + (1 - share).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        predicted = self.module(noisy, steps, conditions.tensors[STATES]).sample
        weight = (1 / (1 - kept[steps])).clamp(max=MAX_LOSS_WEIGHT)
        return weight * F.mse_loss(predicted, latents, reduction="none").mean((1, 2, 3))

    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], on_share: Callable[[float], None]
    ) -> list[Image.Image]:
        """Draw with guidance away from what is predicted for the constant prompt."""
        states = self.encode_prompts([*prompts, CONSTANT_PROMPT]).tensors[STATES]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        constant = states[-1:].expand(len(prompts), -1, -1)
        return self.pipeline(
            states[:-1], constant, GUIDANCE, STEPS, generators, lambda step: on_share((step + 1) / STEPS)
        )
