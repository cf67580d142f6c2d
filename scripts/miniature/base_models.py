"""Steps ``base-a`` to ``base-d``: train the base diffusion models, conditioned on the mini-CLIP's text states.

The base models ``a`` and ``b`` ship. Two more have the shape of ``b`` and serve to measure routing: ``c`` is trained
from scratch, ``d`` is ``b`` trained further.
"""

import json
from dataclasses import asdict, dataclass
from math import isnan

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from loradex.app.miniature.pipeline import CONSTANT_PROMPT, IMAGE_SIZE, embed_prompts, to_latents
from scripts.miniature.mini_clip import cosine_with_warmup, load_clip, resume_training, save_checkpoint
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, TEMPLATES, TRAINING_SETS, Build, log, timed
from scripts.miniature.words import captions_of

TIME_STEPS = 1000
MAX_ATTENTION_SIDE = 8  # largest side of feature maps with attention
MAX_LOSS_WEIGHT = 20.0  # of a time step
PLAIN_SETS = ("noto", "twemoji", "fluent-emoji-flat")  # of similar style, each with a drawing of every concept


@dataclass(frozen=True, slots=True)
class BaseModelConfig:
    """The shape, seed and training of a base model."""

    name: str
    side: int  # of the latents, to which pictures of 32 x 32 are folded
    widths: tuple[int, ...]
    heads: tuple[int, ...]
    seed: int
    steps: int
    broad_steps: int  # first steps, on all drawings alike
    begins_as: str | None = None  # the base model whose weights it starts from
    batch: int = 64
    lr: float = 1.2e-3
    warmup: int = 200
    constant_prompt_share: float = 0.15
    # The share of unchanged drawings of PLAIN_SETS in later steps; the others are any drawings in any variant.
    plain_share: float = 0.85


BASE_MODELS = {
    "a": BaseModelConfig("a", side=8, widths=(96, 144), heads=(4, 4), seed=SEED + 1, steps=5200, broad_steps=1800),
    "b": BaseModelConfig("b", side=8, widths=(64, 112), heads=(4, 4), seed=SEED + 2, steps=7000, broad_steps=2800),
    "c": BaseModelConfig("c", side=8, widths=(64, 112), heads=(4, 4), seed=SEED + 3, steps=1200, broad_steps=500),
    "d": BaseModelConfig(
        "d", side=8, widths=(64, 112), heads=(4, 4), seed=SEED + 4, steps=600, broad_steps=0, begins_as="b", lr=3e-4
    ),
}


def new_unet(config: BaseModelConfig) -> UNet2DConditionModel:
    """An untrained U-Net for latents (folded pictures), with cross-attention at 8 x 8 and below."""
    has_attention = [config.side >> level <= MAX_ATTENTION_SIDE for level in range(len(config.widths))]
    channels = 3 * (IMAGE_SIZE // config.side) ** 2
    unet = UNet2DConditionModel(
        sample_size=config.side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=config.widths,
        down_block_types=tuple("CrossAttnDownBlock2D" if attention else "DownBlock2D" for attention in has_attention),
        up_block_types=tuple(
            "CrossAttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(has_attention)
        ),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=config.heads,
        norm_num_groups=16,
    )
    unet.set_default_attn_processor()  # trains faster on a CPU than the fused one
    return unet.to(memory_format=torch.channels_last)


def new_scheduler() -> DDPMScheduler:
    """The noise schedule of all base models: squared cosine; the model predicts the clean picture."""
    return DDPMScheduler(TIME_STEPS, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)


def build_base(build: Build, config: BaseModelConfig) -> None:
    """Write ``tree-<name>/unet`` and ``tree-<name>/scheduler`` in diffusers format."""
    folder = build / f"tree-{config.name}"
    if (folder / "unet/config.json").exists():
        return
    with timed(f"base model {config.name}"):
        loss = train_base(build, config)
        new_scheduler().save_pretrained(folder / "scheduler")
        (folder / "report.json").write_text(json.dumps({"tree": asdict(config), "loss": loss}, indent=1))


def train_base(build: Build, config: BaseModelConfig) -> float:
    """Train the U-Net to predict pictures from noisy ones and captions; returns the last mean loss."""
    torch.manual_seed(config.seed)
    unet, scheduler = new_unet(config), new_scheduler()
    if config.begins_as:
        unet.load_state_dict(
            UNet2DConditionModel.from_pretrained(build / f"tree-{config.begins_as}" / "unet").state_dict()
        )
    _, concept, trained_on, concepts = load_pictures(build)
    small = torch.from_numpy(np.load(build / "small.npz")["small"][trained_on])
    concept = concept[trained_on]
    plain = np.flatnonzero(
        np.isin(
            np.load(build / "pictures.npz")["set"][trained_on], [list(TRAINING_SETS).index(name) for name in PLAIN_SETS]
        )
    )
    clip, tokenizer = load_clip(build)
    captions = [[template.format(caption) for caption in captions_of(c) for template in TEMPLATES] for c in concepts]
    states = [embed_prompts(clip.text, tokenizer(texts)) for texts in captions]
    constant = embed_prompts(clip.text, tokenizer([CONSTANT_PROMPT]))[0]

    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: cosine_with_warmup(step, config.warmup, config.steps)
    )
    ema = EMAModel(unet.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)
    parts = {"model": unet, "optimizer": optimizer, "schedule": schedule, "ema": ema}
    checkpoint = build / f"base-{config.name}-training.pt"
    mean_loss = float("nan")
    for step in range(resume_training(checkpoint, parts), config.steps):
        rng = np.random.default_rng((config.seed, step))
        rows, variant = rng.integers(len(small), size=config.batch), rng.integers(small.shape[1], size=config.batch)
        if step >= config.broad_steps:
            use_plain = rng.random(config.batch) < config.plain_share
            rows[use_plain], variant[use_plain] = rng.choice(plain, use_plain.sum()), 0
        clean = to_model_pictures(small[rows, variant], config.side)
        context = torch.stack([random_caption(states[c], rng) for c in concept[rows]])
        context[torch.from_numpy(rng.random(config.batch) < config.constant_prompt_share)] = constant
        loss = denoising_loss(unet, scheduler, clean, context, stratified_timesteps(1, config.batch, rng), rng).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ema.step(unet.parameters())
        mean_loss = float(loss) if isnan(mean_loss) else 0.98 * mean_loss + 0.02 * float(loss)
        if step % 50 == 0:
            log.info("base %s: step %d of %d, loss %.4f", config.name, step, config.steps, mean_loss)
        if step % 200 == 199:
            save_checkpoint(checkpoint, step + 1, parts)
    ema.copy_to(unet.parameters())
    unet.half().save_pretrained(build / f"tree-{config.name}" / "unet")
    return mean_loss


def random_caption(states: Tensor, rng: np.random.Generator) -> Tensor:
    """Text states of a random caption of a concept: its label in two cases of three, else any."""
    return states[rng.integers(len(TEMPLATES) if rng.random() < 0.67 else len(states))]


def stratified_timesteps(groups: int, samples: int, rng: np.random.Generator) -> Tensor:
    """Random time steps (groups * samples,), stratified over the schedule within each group."""
    strata = rng.permuted(np.tile(np.arange(samples), (groups, 1)), axis=1)
    return torch.from_numpy(((strata + rng.random((groups, samples))) / samples * TIME_STEPS).astype(np.int64).ravel())


def denoising_loss(
    unet: nn.Module, scheduler: DDPMScheduler, clean: Tensor, context: Tensor, times: Tensor, rng: np.random.Generator
) -> Tensor:
    """Squared error (n,) of each predicted picture, weighted as an error of v (Salimans and Ho 2022) up to a bound."""
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    noisy = scheduler.add_noise(clean, noise, times)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = unet(noisy.contiguous(memory_format=torch.channels_last), times, context).sample
    weight = (1 / (1 - scheduler.alphas_cumprod[times])).clamp(max=MAX_LOSS_WEIGHT)
    return weight * F.mse_loss(predicted.float(), clean, reduction="none").mean((1, 2, 3))


def to_model_pictures(small: Tensor, side: int) -> Tensor:
    """Convert stored int8 pictures (n, 3, 32, 32) to the latents that a base model learns."""
    return to_latents(small.float() / 127, side)
