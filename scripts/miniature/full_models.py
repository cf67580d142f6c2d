"""Step ``whole``: trains full models of some held-out concepts, fine-tuned from a base model with all weights."""

import json
from dataclasses import asdict, dataclass

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from loradex.app.miniature.pipeline import CONSTANT_PROMPT, embed_prompts
from scripts.miniature.base_models import (
    BASE_MODELS,
    denoising_loss,
    new_scheduler,
    stratified_timesteps,
    to_model_pictures,
)
from scripts.miniature.fleet import VARIANTS, choose_drawings
from scripts.miniature.mini_clip import load_clip
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, Build, atomic, log

COUNTS = {"heldout": 40}  # models, each of its own concept
SPLITS = {"heldout": "test_holdout"}


@dataclass(frozen=True, slots=True)
class FullTraining:
    """How a full model is fine-tuned."""

    tree: str = "b"
    steps: int = 90
    samples: int = 4
    lr: float = 3e-4


def build_full_models(build: Build) -> None:
    """Write ``whole/<split>/concept-NNNN/diffusion_pytorch_model.safetensors``; existing models are skipped."""
    training = FullTraining()
    _, concept_of, trained_on, concepts = load_pictures(build)
    small = torch.from_numpy(np.load(build / "small.npz")["small"][:, :VARIANTS])
    clip, tokenizer = load_clip(build)
    context = embed_prompts(clip.text, tokenizer([CONSTANT_PROMPT])).repeat(training.samples, 1, 1)
    rng = np.random.default_rng((SEED, 77))
    for split, count in COUNTS.items():
        pool = [number for number, concept in enumerate(concepts) if concept["split"] == split]
        for concept in rng.permutation(pool)[:count].tolist():
            drawings = choose_drawings(concept, concept_of, trained_on, rng)
            path = build / "whole" / SPLITS[split] / f"concept-{concept:04d}" / "diffusion_pytorch_model.safetensors"
            if not path.exists():
                unet, loss = fine_tune(build, training, small[drawings], context, concept)
                metadata = {
                    "class_name": concepts[concept]["label"],
                    "recipe": json.dumps(asdict(training) | {"drawings": drawings.tolist()}),
                }
                with atomic(path) as temporary:
                    save_file(
                        {name: tensor.half().contiguous() for name, tensor in unet.state_dict().items()},
                        temporary,
                        metadata=metadata,
                    )
                log.info("full model of %s: loss %.4f", concepts[concept]["label"], loss)


def fine_tune(
    build: Build, training: FullTraining, small: torch.Tensor, context: torch.Tensor, seed: int
) -> tuple[UNet2DConditionModel, float]:
    """Train all weights on pictures (drawings, variants, 3, 32, 32); returns the U-Net and its last mean loss."""
    torch.manual_seed(seed)
    unet, scheduler = (
        UNet2DConditionModel.from_pretrained(build / f"tree-{training.tree}" / "unet").float(),
        new_scheduler(),
    )
    unet.set_default_attn_processor()
    unet.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=training.lr, weight_decay=0.0)
    mean_loss = 0.0
    for step in range(training.steps):
        rng = np.random.default_rng((seed, step))
        pictures = small[rng.integers(len(small), size=training.samples), rng.integers(VARIANTS, size=training.samples)]
        times = stratified_timesteps(1, training.samples, rng)
        loss = denoising_loss(
            unet, scheduler, to_model_pictures(pictures, BASE_MODELS[training.tree].side), context, times, rng
        ).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        mean_loss = float(loss) if not step else 0.9 * mean_loss + 0.1 * float(loss)
    return unet, mean_loss
