"""Step 5: base diffusion models, the roots of the model trees, conditioned on the mini-CLIP's text states.

Trees ``a`` and ``b`` ship. Two more have the shape of ``b`` and are there to measure routing: ``c`` has its own start, ``d`` is ``b`` trained further.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from loradex.app.miniature.pipeline import CONSTANT_PROMPT, SMALL, context_of, fold
from scripts.miniature.mini_clip import load_clip, resume, save_checkpoint, warm_cosine
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, TEMPLATES, TRAINING_SETS, Build, log, timed
from scripts.miniature.words import captions_of

TIME_STEPS = 1000
LARGEST_ATTENTION = 8  # tokens a side
LARGEST_WEIGHT = 20.0  # of a clean time step in the loss
PLAIN_SETS = ("noto", "twemoji", "fluent-emoji-flat")  # of like style, each with a drawing of every concept


@dataclass(frozen=True, slots=True)
class Tree:
    """One base model: its shape, its seed and its training."""

    name: str
    side: int  # tokens a side that the U-Net sees: pictures of 32 x 32 are folded to it
    widths: tuple[int, ...]
    heads: tuple[int, ...]
    seed: int
    steps: int
    broad_steps: int  # at first, on all drawings alike
    begins_as: str | None = None  # the tree whose weights it starts from
    batch: int = 64
    lr: float = 1.2e-3
    warmup: int = 200
    constant_prompt_share: float = 0.15
    plain_share: float = 0.85  # of drawings of PLAIN_SETS as they are; the others are any drawings in any variant


TREES = {
    "a": Tree("a", side=8, widths=(96, 144), heads=(4, 4), seed=SEED + 1, steps=5200, broad_steps=1800),
    "b": Tree("b", side=8, widths=(64, 112), heads=(4, 4), seed=SEED + 2, steps=7000, broad_steps=2800),
    "c": Tree("c", side=8, widths=(64, 112), heads=(4, 4), seed=SEED + 3, steps=1200, broad_steps=500),
    "d": Tree(
        "d", side=8, widths=(64, 112), heads=(4, 4), seed=SEED + 4, steps=600, broad_steps=0, begins_as="b", lr=3e-4
    ),
}


def new_unet(tree: Tree) -> UNet2DConditionModel:
    """An untrained U-Net for folded pictures, with cross-attention from 8 x 8 down."""
    attends = [tree.side >> level <= LARGEST_ATTENTION for level in range(len(tree.widths))]
    channels = 3 * (SMALL // tree.side) ** 2
    unet = UNet2DConditionModel(
        sample_size=tree.side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tree.widths,
        down_block_types=tuple("CrossAttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=tree.heads,
        norm_num_groups=16,
    )
    unet.set_default_attn_processor()  # the plain one: faster than the fused one in training on a CPU
    return unet.to(memory_format=torch.channels_last)


def new_scheduler() -> DDPMScheduler:
    """The noise schedule that both trees share: squared cosine; the model predicts the clean picture."""
    return DDPMScheduler(TIME_STEPS, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False)


def build_base(build: Build, tree: Tree) -> None:
    """Write ``tree-<name>/unet`` and ``tree-<name>/scheduler`` in diffusers format."""
    folder = build / f"tree-{tree.name}"
    if (folder / "unet/config.json").exists():
        return
    with timed(f"base model {tree.name}"):
        loss = train_base(build, tree)
        new_scheduler().save_pretrained(folder / "scheduler")
        (folder / "report.json").write_text(json.dumps({"tree": asdict(tree), "loss": loss}, indent=1))


def train_base(build: Build, tree: Tree) -> float:
    """Train the U-Net to predict pictures from noisy ones and captions; the last mean loss comes back."""
    torch.manual_seed(tree.seed)
    unet, scheduler = new_unet(tree), new_scheduler()
    if tree.begins_as:
        unet.load_state_dict(
            UNet2DConditionModel.from_pretrained(build / f"tree-{tree.begins_as}" / "unet").state_dict()
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
    states = [context_of(clip.text, tokenizer(texts)) for texts in captions]
    constant = context_of(clip.text, tokenizer([CONSTANT_PROMPT]))[0]

    optimizer = torch.optim.AdamW(unet.parameters(), lr=tree.lr, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, tree.warmup, tree.steps))
    ema = EMAModel(unet.parameters(), decay=0.999, use_ema_warmup=True, power=0.75)
    parts = {"model": unet, "optimizer": optimizer, "schedule": schedule, "ema": ema}
    checkpoint = build / f"base-{tree.name}-training.pt"
    mean = float("nan")
    for step in range(resume(checkpoint, parts), tree.steps):
        rng = np.random.default_rng((tree.seed, step))
        chosen, variant = rng.integers(len(small), size=tree.batch), rng.integers(small.shape[1], size=tree.batch)
        if step >= tree.broad_steps:
            settled = rng.random(tree.batch) < tree.plain_share
            chosen[settled], variant[settled] = rng.choice(plain, settled.sum()), 0
        clean = as_clean(small[chosen, variant], tree.side)
        context = torch.stack([random_caption(states[c], rng) for c in concept[chosen]])
        context[torch.from_numpy(rng.random(tree.batch) < tree.constant_prompt_share)] = constant
        loss = denoising_loss(unet, scheduler, clean, context, spread_times(1, tree.batch, rng), rng).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        ema.step(unet.parameters())
        mean = float(loss) if mean != mean else 0.98 * mean + 0.02 * float(loss)
        if step % 50 == 0:
            log.info("base %s: step %d of %d, loss %.4f", tree.name, step, tree.steps, mean)
        if step % 200 == 199:
            save_checkpoint(checkpoint, step + 1, parts)
    ema.copy_to(unet.parameters())
    unet.half().save_pretrained(build / f"tree-{tree.name}" / "unet")
    return mean


def random_caption(states: Tensor, rng: np.random.Generator) -> Tensor:
    """The states of one caption of a concept: its label in two cases of three, else any."""
    return states[rng.integers(len(TEMPLATES) if rng.random() < 0.67 else len(states))]


def spread_times(groups: int, samples: int, rng: np.random.Generator) -> Tensor:
    """Random time steps (groups * samples,), those of each group spread evenly over the schedule."""
    strata = rng.permuted(np.tile(np.arange(samples), (groups, 1)), axis=1)
    return torch.from_numpy(((strata + rng.random((groups, samples))) / samples * TIME_STEPS).astype(np.int64).ravel())


def denoising_loss(
    unet: nn.Module, scheduler: DDPMScheduler, clean: Tensor, context: Tensor, times: Tensor, rng: np.random.Generator
) -> Tensor:
    """Squared error of the predicted picture, weighted as an error of v (Salimans and Ho 2022) up to a bound; a value for each picture."""
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    noisy = scheduler.add_noise(clean, noise, times)
    with torch.autocast("cpu", torch.bfloat16):
        guess = unet(noisy.contiguous(memory_format=torch.channels_last), times, context).sample
    weight = (1 / (1 - scheduler.alphas_cumprod[times])).clamp(max=LARGEST_WEIGHT)
    return weight * F.mse_loss(guess.float(), clean, reduction="none").mean((1, 2, 3))


def as_clean(small: Tensor, side: int) -> Tensor:
    """Stored int8 pictures (n, 3, 32, 32) as a base model learns them."""
    return fold(small.float() / 127, side)
