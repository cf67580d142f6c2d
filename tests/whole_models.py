"""Whole models whose categories can be read from their weights, for tests: each category moves each layer in a direction of its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import WholeModel
from loradex.retrieval.probex.category_expert import CategoryExpert, Odds
from loradex.retrieval.probex.sketch import SketchConfig
from loradex.retrieval.training.category_dataset import CHOSEN, CategoryStudy, category_study, find_classifiers
from loradex.retrieval.training.fit import ExpertConfig, fit
from loradex.retrieval.training.labelled_loras import pack_opened

NAMES = tuple("ant bee cow dog eel fox".split())  # noqa: SIM905
LAYERS = {"vit.layers.0.mlp.fc1": (24, 16), "resnet.stages.0.convolution": (10, 27)}
CONFIG = ExpertConfig(SketchConfig(tuple(LAYERS), 12, 12, ridge=0.03))


def ancestor(seed: int) -> dict[str, Tensor]:
    """Weights of a model from which others are fine-tuned; the second layer is a convolution."""
    torch.manual_seed(seed)
    return {
        "vit.layers.0.mlp.fc1.weight": torch.randn(24, 16),
        "resnet.stages.0.convolution.weight": torch.randn(10, 3, 3, 3),
    }


def moved(base: dict[str, Tensor], members: Tensor, seed: int) -> dict[str, Tensor]:
    """A descendant, with noise."""
    torch.manual_seed(77)
    directions = {name: torch.randn(len(NAMES), *weight.shape) for name, weight in base.items()}
    torch.manual_seed(seed)
    return {
        n: w + 0.05 * torch.tensordot(members.float(), directions[n], 1) + 0.02 * torch.randn_like(w)
        for n, w in base.items()
    }


def write_models(folder: Path) -> Tensor:
    """Fill a folder in Model-J's layout, its ancestor beside; what is true of its models (models, categories)."""
    base, rng, members = ancestor(1), np.random.default_rng(0), []
    save_file(base, folder / "base.safetensors")
    for split, count in (("train", 120), ("val", 30), ("test", 30)):
        for number in range(count):
            own = torch.from_numpy(rng.random(len(NAMES)) < 0.5)
            own[0] |= not own.any()
            path = folder / split / f"model_idx_{number:04d}" / "model.safetensors"
            path.parent.mkdir(parents=True)
            chosen = [name for name, there in zip(NAMES, own.tolist(), strict=True) if there]
            save_file(
                moved(base, own, len(members)), path, {CHOSEN: repr(chosen) if number % 2 else json.dumps(chosen)}
            )
            members.append(own)
    return torch.stack(members)


def study_of(folder: Path) -> CategoryStudy:
    """Those models in memory."""
    found = find_classifiers(folder)
    opened = [WholeModel.open(model.path, folder / "base.safetensors", "mini") for model in found]
    return category_study(pack_opened(opened, list(LAYERS)), found)


def expert_of(study: CategoryStudy, texts: Tensor, space: str, base: str | None = "base.safetensors") -> CategoryExpert:
    """An expert for them."""
    fitted = fit(study, study.rows("train"), CONFIG)
    judged = study.judged
    odds = Odds.fit(fitted.scores(study.take(judged)), study.members[judged])
    return CategoryExpert("mini-x", "mini", space, dict(LAYERS), fitted.model, study.names, texts, odds, base)


def write_encoder(own: Path, models: Path) -> Encoder:
    """An encoder folder: the miniature's space, experts and words, and an expert for the models of a folder."""
    own.mkdir(parents=True)
    for name in ("space.safetensors", "labels.safetensors"):
        shutil.copy(MINIATURE / "encoder" / name, own)
    for name in ("clip", "experts"):
        (own / name).symlink_to(MINIATURE / "encoder" / name)
    encoder = Encoder.load(own)
    (own / "categories").mkdir()
    base = str(models / "base.safetensors")
    expert_of(study_of(models), encoder.encode_texts(NAMES), encoder.space.name, base).save(
        own / "categories" / "mini-x.safetensors"
    )
    return Encoder.load(own)
