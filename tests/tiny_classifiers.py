"""Tiny classifiers for tests, whose categories can be read from their weights: each category has its own direction."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import FullModel
from loradex.retrieval.probex.category_expert import CategoryExpert, PlattScaling
from loradex.retrieval.probex.sketch import SketchConfig
from loradex.retrieval.training.category_dataset import CategoryDataset, make_category_dataset
from loradex.retrieval.training.expert_config import ExpertConfig
from loradex.retrieval.training.fit import fit
from loradex.retrieval.training.labelled_classifiers import CATEGORIES_KEY, find_classifiers
from loradex.retrieval.training.packing import pack_opened_files

NAMES = tuple("ant bee cow dog eel fox".split())  # noqa: SIM905
LAYERS = {"vit.layers.0.mlp.fc1": (24, 16), "resnet.stages.0.convolution": (10, 27)}
CONFIG = ExpertConfig(SketchConfig(tuple(LAYERS), 12, 12, ridge=0.03))


def make_ancestor(seed: int) -> dict[str, Tensor]:
    """Weights of a model that others are fine-tuned from; the second layer is a convolution."""
    torch.manual_seed(seed)
    return {
        "vit.layers.0.mlp.fc1.weight": torch.randn(24, 16),
        "resnet.stages.0.convolution.weight": torch.randn(10, 3, 3, 3),
    }


def fine_tune(base: dict[str, Tensor], members: Tensor, seed: int) -> dict[str, Tensor]:
    """Move the weights in the directions of the categories in ``members`` (categories,), with noise."""
    torch.manual_seed(77)
    directions = {name: torch.randn(len(NAMES), *weight.shape) for name, weight in base.items()}
    torch.manual_seed(seed)
    return {
        n: w + 0.05 * torch.tensordot(members.float(), directions[n], 1) + 0.02 * torch.randn_like(w)
        for n, w in base.items()
    }


def write_classifiers(folder: Path) -> Tensor:
    """Write classifiers in Model-J's layout, and their ancestor; return their categories (models, categories)."""
    base, rng, members = make_ancestor(1), np.random.default_rng(0), []
    save_file(base, folder / "base.safetensors")
    for split, count in (("train", 120), ("val", 30), ("test", 30)):
        for number in range(count):
            own = torch.from_numpy(rng.random(len(NAMES)) < 0.5)
            own[0] |= not own.any()
            path = folder / split / f"model_idx_{number:04d}" / "model.safetensors"
            path.parent.mkdir(parents=True)
            chosen = [name for name, is_member in zip(NAMES, own.tolist(), strict=True) if is_member]
            metadata = {CATEGORIES_KEY: repr(chosen) if number % 2 else json.dumps(chosen)}
            save_file(fine_tune(base, own, len(members)), path, metadata)
            members.append(own)
    return torch.stack(members)


def load_classifiers(folder: Path) -> CategoryDataset:
    """Read the classifiers of ``write_classifiers`` into a dataset."""
    files = find_classifiers(folder)
    models = [FullModel.open(file.path, folder / "base.safetensors", "mini") for file in files]
    return make_category_dataset(pack_opened_files(models, list(LAYERS)), files)


def fit_expert(
    dataset: CategoryDataset, texts: Tensor, space: str, base: str | None = "base.safetensors"
) -> CategoryExpert:
    """Fit an expert to the training models, and its scaling to the validation models."""
    fitted = fit(dataset, dataset.rows("train"), CONFIG)
    rows = dataset.validation_rows
    scaling = PlattScaling.fit(fitted.scores(dataset.take(rows)), dataset.members[rows])
    return CategoryExpert("mini-x", "mini", space, dict(LAYERS), fitted.model, dataset.names, texts, scaling, base)


def write_encoder(folder: Path, classifiers: Path) -> Encoder:
    """Write an encoder with the miniature's space, experts and labels, and an expert for a folder of classifiers."""
    folder.mkdir(parents=True)
    for name in ("space.safetensors", "labels.safetensors"):
        shutil.copy(MINIATURE / "encoder" / name, folder)
    for name in ("clip", "experts"):
        (folder / name).symlink_to(MINIATURE / "encoder" / name)
    encoder = Encoder.load(folder)
    (folder / "categories").mkdir()
    base = str(classifiers / "base.safetensors")
    expert = fit_expert(load_classifiers(classifiers), encoder.encode_texts(NAMES), encoder.space.name, base)
    expert.save(folder / "categories" / "mini-x.safetensors")
    return Encoder.load(folder)
