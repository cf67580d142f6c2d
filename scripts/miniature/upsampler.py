"""Step ``upsampler``: makes pictures of 32 x 32 pixels for base models, and trains an upsampler to 64 x 64."""

import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.app.miniature.pipeline import Upsampler
from scripts.miniature.mini_clip import augment, cosine_with_warmup, resume_training, save_checkpoint
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, Build, atomic, log, timed

VARIANTS = 8  # of each drawing: itself, mirrored, and six augmented


@dataclass(frozen=True, slots=True)
class UpsamplerTraining:
    """Settings of the upsampler's training."""

    steps: int = 800
    batch: int = 48
    lr: float = 2e-3
    warmup: int = 100
    noise: float = 0.12  # maximum on its input, as base models do not draw perfectly


def build_upsampler(build: Build) -> None:
    """Write ``upsampler/`` (diffusers format) and ``small.npz`` (drawings x variants x 3 x 32 x 32, int8)."""
    if not (build / "small.npz").exists():
        with timed("small pictures"):
            pixels = load_pictures(build)[0]
            drawings, rng = torch.from_numpy(pixels).permute(0, 3, 1, 2), np.random.default_rng((SEED, 9))
            variants = [
                to_floats(pixels),
                to_floats(pixels).flip(-1),
                *(augment(drawings, rng) for _ in range(VARIANTS - 2)),
            ]
            small = torch.stack([F.avg_pool2d(variant, 2).mul(127).round().to(torch.int8) for variant in variants], 1)
            with atomic(build / "small.npz") as path, path.open("wb") as file:
                np.savez(file, small=small.numpy())
    if not (build / "upsampler/config.json").exists():
        with timed("upsampler"):
            train_upsampler(build, UpsamplerTraining())


def train_upsampler(build: Build, training: UpsamplerTraining) -> None:
    """Train on drawings of the training sets, and measure PSNR on the unseen sets beside bicubic resizing."""
    torch.manual_seed(SEED)
    pixels, _, trained_on, _ = load_pictures(build)
    drawings = torch.from_numpy(pixels[trained_on]).permute(0, 3, 1, 2)
    model = Upsampler().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: cosine_with_warmup(step, training.warmup, training.steps)
    )
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    for step in range(resume_training(build / "upsampler-training.pt", parts), training.steps):
        rng = np.random.default_rng((SEED, 4, step))
        large = augment(drawings[rng.choice(len(drawings), training.batch, replace=False)], rng)
        levels = torch.from_numpy(
            rng.uniform(0, training.noise, (len(large), 1, 1, 1)) * (rng.random((len(large), 1, 1, 1)) < 0.7)
        ).float()
        small = F.avg_pool2d(large, 2)
        small = small + levels * torch.from_numpy(rng.standard_normal(small.shape, dtype=np.float32))
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(small.contiguous(memory_format=torch.channels_last)).float()
        loss = F.l1_loss(predicted, large)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            log.info("upsampler: step %d of %d, L1 %.4f", step, training.steps, loss.detach())
        if step % 200 == 199:
            save_checkpoint(build / "upsampler-training.pt", step + 1, parts)
    report = evaluate_upsampler(model.eval(), to_floats(pixels[~trained_on]))
    log.info("upsampler: %s", report)
    model.half().save_pretrained(build / "upsampler")
    (build / "upsampler.json").write_text(json.dumps({"training": asdict(training)} | report, indent=1))


@torch.inference_mode()
def evaluate_upsampler(model: Upsampler, large: Tensor) -> dict[str, float]:
    """PSNR (dB) of the upsampler and of bicubic resizing."""
    small = F.avg_pool2d(large, 2)
    predictions = {
        "psnr": torch.cat([model(part) for part in small.split(128)]),
        "psnr_bicubic": F.interpolate(small, scale_factor=2, mode="bicubic"),
    }
    return {
        name: float(10 * torch.log10(4 / F.mse_loss(predicted, large))) for name, predicted in predictions.items()
    } | {"pictures": len(large)}


def to_floats(pixels: np.ndarray) -> Tensor:
    """Convert uint8 pictures (n, 64, 64, 3) to floats (n, 3, 64, 64) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
