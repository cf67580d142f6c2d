"""Step 4: a small autoencoder, so that the base models diffuse 8 x 8 x 16 latents and draw 64 x 64 pictures."""

import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from scripts.miniature.mini_clip import augment, resume, save_checkpoint, warm_cosine
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, Build, atomic, log, timed

UNSHUFFLE = 2  # pictures enter and leave as 32 x 32 x 12
VARIANTS = 8  # latents kept of each drawing: itself, mirrored, and six augmented


@dataclass(frozen=True, slots=True)
class AutoencoderTraining:
    """How long and how hard the autoencoder trains in one phase; each phase goes on from the last with a new schedule."""

    name: str
    steps: int
    lr: float
    batch: int = 48
    warmup: int = 100
    coarse_weight: float = 0.5  # the same loss on half-size pictures
    kl_weight: float = 0.0  # above 0 latents are drawn from the posterior, else they are its mean and a little noise
    noise: float = 0.05  # of the latents' deviation


# With the KL term of a VAE half of the channels stayed empty; without it they fill.
PHASES = (
    AutoencoderTraining("sampled", steps=3300, lr=1.5e-3, kl_weight=1e-5),
    AutoencoderTraining("plain", steps=1300, lr=1.2e-3),
)


def build_autoencoder(build: Build) -> None:
    """Write ``autoencoder/`` (diffusers format) and ``latents.npz`` (drawings x variants x 16 x 8 x 8)."""
    if not (build / "autoencoder/config.json").exists():
        with timed("autoencoder"):
            model = new_autoencoder()
            pixels, _, trained_on, _ = load_pictures(build)
            drawings = torch.from_numpy(pixels[trained_on]).permute(0, 3, 1, 2)
            for number, phase in enumerate(PHASES):
                train_autoencoder(build, model, drawings, phase, number)
            finish(build, model.eval(), pixels, trained_on)
    if not (build / "latents.npz").exists():
        with timed("latents"):
            encode_drawings(build)


def new_autoencoder() -> AutoencoderKL:
    """An untrained autoencoder of 32 x 32 x 12 folded pictures."""
    torch.manual_seed(SEED)
    return AutoencoderKL(
        in_channels=3 * UNSHUFFLE**2,
        out_channels=3 * UNSHUFFLE**2,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=16,
        mid_block_add_attention=False,
    ).to(memory_format=torch.channels_last)


def train_autoencoder(build: Build, model: AutoencoderKL, drawings: Tensor, training: AutoencoderTraining, number: int) -> None:
    """One phase of training on the drawings of the training sets."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, training.warmup, training.steps))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    checkpoint = build / f"autoencoder-{training.name}.pt"
    for step in range(resume(checkpoint, parts), training.steps):
        rng = np.random.default_rng((SEED, 4 + number, step))
        batch = augment(drawings[rng.choice(len(drawings), training.batch, replace=False)], rng)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(fold(batch)).latent_dist
            mean = posterior.mode()
            latents = posterior.sample() if training.kl_weight else mean + training.noise * mean.std((0, 2, 3), keepdim=True) * torch.randn_like(mean)
            picture = unfold(model.decode(latents).sample).float()
        fine, coarse = F.l1_loss(picture, batch), F.l1_loss(F.avg_pool2d(picture, 2), F.avg_pool2d(batch, 2))
        loss = fine + training.coarse_weight * coarse + training.kl_weight * posterior.kl().float().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            log.info("autoencoder, %s: step %d of %d, L1 %.4f", training.name, step, training.steps, fine.detach())
        if step % 200 == 199 or step == training.steps - 1:
            save_checkpoint(checkpoint, step + 1, parts)


def finish(build: Build, model: AutoencoderKL, pixels: np.ndarray, trained_on: np.ndarray) -> None:
    """Measure the PSNR on the sets never trained on, and save with the latents' mean and deviation by channel."""
    latents = encode(model, as_floats(pixels[trained_on]))
    model.register_to_config(latents_mean=latents.mean((0, 2, 3)).tolist(), latents_std=latents.std((0, 2, 3)).tolist(), scaling_factor=1.0)
    report = {}
    for name, chosen in {"trained": pixels[trained_on][:1361], "unseen": pixels[~trained_on]}.items():
        pictures = as_floats(chosen)
        report[f"psnr_{name}"] = float(10 * torch.log10(4 / F.mse_loss(decode(model, encode(model, pictures)), pictures)))
    log.info("autoencoder: %s dB", report)
    model.half().save_pretrained(build / "autoencoder")
    (build / "autoencoder.json").write_text(json.dumps({"training": [asdict(phase) for phase in PHASES]} | report, indent=1))


def as_floats(pixels: np.ndarray) -> Tensor:
    """uint8 pictures (n, 64, 64, 3) -> (n, 3, 64, 64) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def fold(pictures: Tensor) -> Tensor:
    """(n, 3, 64, 64) -> (n, 12, 32, 32)."""
    return F.pixel_unshuffle(pictures, UNSHUFFLE).contiguous(memory_format=torch.channels_last)


def unfold(folded: Tensor) -> Tensor:
    """(n, 12, 32, 32) -> (n, 3, 64, 64)."""
    return F.pixel_shuffle(folded, UNSHUFFLE)


@torch.inference_mode()
def encode(model: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Mean latents (n, 16, 8, 8) of pictures in [-1, 1], before scaling."""
    return torch.cat([model.encode(fold(batch)).latent_dist.mean for batch in pictures.split(128)])


@torch.inference_mode()
def decode(model: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pictures (n, 3, 64, 64) of latents, before scaling."""
    return torch.cat([unfold(model.decode(batch).sample) for batch in latents.split(128)])


def encode_drawings(build: Build) -> None:
    """Standardised latents of every drawing in ``VARIANTS`` variants: (n, variants, 16, 8, 8) float16."""
    model = AutoencoderKL.from_pretrained(build / "autoencoder").float().eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in (model.config.latents_mean, model.config.latents_std))
    pixels = load_pictures(build)[0]
    drawings, plain = torch.from_numpy(pixels).permute(0, 3, 1, 2), as_floats(pixels)
    rng = np.random.default_rng((SEED, 9))
    variants = [plain, plain.flip(-1), *(augment(drawings, rng) for _ in range(VARIANTS - 2))]
    latents = torch.stack([(encode(model, variant) - mean) / std for variant in variants], 1)
    with atomic(build / "latents.npz") as path, path.open("wb") as file:
        np.savez(file, latents=latents.half().numpy())
