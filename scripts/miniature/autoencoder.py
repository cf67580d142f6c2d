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
    """How long and how hard the autoencoder trains."""

    steps: int = 3300
    batch: int = 48
    lr: float = 1.5e-3
    warmup: int = 100
    kl_weight: float = 1e-5
    late_from: int = 2200  # from this step on the latents may carry more: at 1e-5 nine of sixteen channels stayed empty
    late_kl_weight: float = 1e-7
    coarse_weight: float = 0.5  # the same loss on half-size pictures


def build_autoencoder(build: Build, training: AutoencoderTraining) -> None:
    """Write ``autoencoder/`` (diffusers format) and ``latents.npz`` (drawings x variants x 16 x 8 x 8)."""
    folder = build / "autoencoder"
    if not (folder / "config.json").exists():
        with timed("autoencoder"):
            report = train_autoencoder(build, training)
            (build / "autoencoder.json").write_text(json.dumps({"training": asdict(training), **report}, indent=1))
    if not (build / "latents.npz").exists():
        with timed("latents"):
            encode_drawings(build)


def train_autoencoder(build: Build, training: AutoencoderTraining) -> dict[str, float]:
    """Train on the drawings of the training sets; PSNR is measured on the sets never trained on."""
    torch.manual_seed(SEED)
    pixels, _, trained_on, _ = load_pictures(build)
    drawings = torch.from_numpy(pixels[trained_on]).permute(0, 3, 1, 2)
    model = AutoencoderKL(
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
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warm_cosine(step, training.warmup, training.steps))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    for step in range(resume(build / "autoencoder-training.pt", parts), training.steps):
        rng = np.random.default_rng((SEED, 4, step))
        batch = augment(drawings[rng.choice(len(drawings), training.batch, replace=False)], rng)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(fold(batch)).latent_dist
            picture = unfold(model.decode(posterior.sample()).sample).float()
        fine, coarse = F.l1_loss(picture, batch), F.l1_loss(F.avg_pool2d(picture, 2), F.avg_pool2d(batch, 2))
        kl_weight = training.late_kl_weight if step >= training.late_from else training.kl_weight
        loss = fine + training.coarse_weight * coarse + kl_weight * posterior.kl().float().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            log.info("autoencoder: step %d of %d, L1 %.4f", step, training.steps, float(fine))
        if step % 200 == 199:
            save_checkpoint(build / "autoencoder-training.pt", step + 1, parts)
    model.eval()
    latents = encode(model, torch.from_numpy(pixels[trained_on][:1024]).permute(0, 3, 1, 2).float() / 127.5 - 1)
    model.register_to_config(scaling_factor=float(1 / latents.std()), shift_factor=float(latents.mean()))
    unseen = torch.from_numpy(pixels[~trained_on]).permute(0, 3, 1, 2).float() / 127.5 - 1
    error = F.mse_loss(decode(model, encode(model, unseen)), unseen)
    model.half().save_pretrained(build / "autoencoder")
    psnr = float(10 * torch.log10(4 / error))
    log.info("autoencoder: %.2f dB on %d drawings of unseen sets", psnr, len(unseen))
    return {"psnr": psnr, "pictures": len(unseen)}


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
    """Scaled latents of every drawing in ``VARIANTS`` variants: (n, variants, 16, 8, 8) float16."""
    model = AutoencoderKL.from_pretrained(build / "autoencoder").float().eval()
    scale, shift = model.config.scaling_factor, model.config.shift_factor
    drawings = torch.from_numpy(load_pictures(build)[0]).permute(0, 3, 1, 2)
    plain = drawings.float() / 127.5 - 1
    rng = np.random.default_rng((SEED, 5))
    variants = [plain, plain.flip(-1), *(augment(drawings, rng) for _ in range(VARIANTS - 2))]
    latents = torch.stack([(encode(model, variant) - shift) * scale for variant in variants], 1)
    with atomic(build / "latents.npz") as path, path.open("wb") as file:
        np.savez(file, latents=latents.half().numpy())
