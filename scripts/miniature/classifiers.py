"""Steps ``classifiers-vit``, ``classifiers-vit-2`` and ``classifiers-resnet``: train three model trees of classifiers.

The ancestor of a tree learns to classify all concepts but 64. Its descendants are fine-tuned from it with all weights
and a new head, each on a random half of the 64 concepts in random order, with its own seed, learning rate, number of
steps and strength of augmentation. Groups of models train at once: their weights are stacked and mapped over with
torch.func. Two trees have the same architecture.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, Build, atomic, log, timed

SIDE: Final = 32  # pixels
CLASSES: Final = 64  # concepts that descendants learn
CLASSES_PER_MODEL: Final = CLASSES // 2  # concepts of each descendant
MIN_DRAWINGS: Final = 6  # drawings of a concept
GROUP_SIZE: Final = 32  # models trained at once
SAMPLES_PER_STEP: Final = 32  # of each model in a step
BETAS: Final = (0.9, 0.99)
WEIGHT_DECAY: Final = 0.01


@dataclass(frozen=True, slots=True)
class ClassifierTree:
    """How the models of a tree are trained; learning rates are log-uniform."""

    number: int
    family: str
    models: dict[str, int]  # of each split
    rates: tuple[float, float] = (5e-4, 2e-3)
    steps: tuple[int, int] = (80, 160)
    ancestor_rate: float = 1e-3
    ancestor_steps: int = 3000


TREES: Final = {
    "vit": ClassifierTree(0, "mini-vit", {"train": 480, "val": 60, "test": 100}),
    # Of another ancestor, to measure predictions across trees.
    "vit-2": ClassifierTree(1, "mini-vit", {"train": 160, "val": 20, "test": 40}),
    "resnet": ClassifierTree(
        2,
        "mini-resnet",
        {"train": 240, "val": 30, "test": 60},
        steps=(60, 120),
        ancestor_rate=2e-3,
        ancestor_steps=1500,
    ),
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings from which one descendant is trained."""

    index: int
    split: str
    classes: tuple[int, ...]  # in the order of its head
    lr: float
    steps: int
    augmentation: float
    seed: int


def new_model(tree: str, classes: int) -> Any:
    """An untrained model of a tree's architecture, of transformers' classes."""
    if TREES[tree].family == "mini-vit":
        shape = {
            "hidden_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "image_size": SIDE,
            "patch_size": 8,
        }
        config = ViTConfig(
            **shape,
            num_labels=classes,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="eager",
        )
        return ViTForImageClassification(config)
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=24, hidden_sizes=[24, 48, 96], depths=[1, 1, 1], layer_type="basic", num_labels=classes
        )
    )


def class_concepts(
    concept_of: NDArray[np.int16], trained_on: NDArray[np.bool_], concepts: list[dict[str, Any]]
) -> list[int]:
    """The concepts that descendants learn: a random choice of those with enough drawings."""
    counts = np.bincount(concept_of[trained_on], minlength=len(concepts))
    pool = np.flatnonzero(counts >= MIN_DRAWINGS)
    return sorted(np.random.default_rng((SEED, 8)).permutation(pool)[:CLASSES].tolist())


def make_recipes(tree: str) -> list[Recipe]:
    """The recipes of all descendants with their splits, determined by the seed of the build."""
    rng, settings, recipes = np.random.default_rng((SEED, 8, TREES[tree].number)), TREES[tree], list[Recipe]()
    for split, count in settings.models.items():
        for _ in range(count):
            recipes.append(
                Recipe(
                    index=len(recipes),
                    split=split,
                    classes=tuple(rng.permutation(CLASSES)[:CLASSES_PER_MODEL].tolist()),
                    lr=float(np.exp(rng.uniform(*np.log(settings.rates)))),
                    steps=int(rng.integers(*settings.steps, endpoint=True)),
                    augmentation=float(rng.uniform(0.5, 1.5)),
                    seed=int(rng.integers(2**31)),
                )
            )
    return recipes


class Drawings:
    """Small drawings by class, from which augmented batches are drawn."""

    def __init__(
        self, chosen: list[int], concept_of: NDArray[np.int16], trained_on: NDArray[np.bool_], pixels: NDArray[np.uint8]
    ) -> None:
        """Scale the drawings of the chosen concepts to ``SIDE`` pixels."""
        rows = [np.flatnonzero((concept_of == concept) & trained_on) for concept in chosen]
        small = F.avg_pool2d(
            torch.from_numpy(pixels[np.concatenate(rows)]).permute(0, 3, 1, 2).float() / 127.5 - 1,
            pixels.shape[1] // SIDE,
        )
        self.pixels, self.starts, self.counts = (
            small,
            np.cumsum([0, *map(len, rows[:-1])]),
            np.array([len(row) for row in rows]),
        )

    def batch(self, classes: NDArray[np.int64], strength: NDArray[np.float64], rng: np.random.Generator) -> Tensor:
        """Augmented drawings (n, 3, SIDE, SIDE), a random one for each class (n,).

        Drawings are shifted, rotated, scaled, mirrored and tinted, as strongly as ``strength`` (n,) says.
        """
        count = len(classes)
        drawings = self.pixels[self.starts[classes] + (rng.random(count) * self.counts[classes]).astype(np.int64)]
        rotation, scale = rng.normal(0, 0.15, count) * strength, np.exp(rng.normal(0, 0.12, count) * strength)
        mirror, shift = rng.choice([-1.0, 1.0], count), rng.normal(0, 0.12, (2, count)) * strength
        rows = [
            np.cos(rotation) * scale * mirror,
            -np.sin(rotation) * scale,
            shift[0],
            np.sin(rotation) * scale * mirror,
            np.cos(rotation) * scale,
            shift[1],
        ]
        theta = torch.from_numpy(np.stack(rows, 1).astype(np.float32)).reshape(count, 2, 3)
        transformed = (
            F.grid_sample(
                drawings - 1, F.affine_grid(theta, [count, 3, SIDE, SIDE], align_corners=False), align_corners=False
            )
            + 1
        )  # white outside
        tint = torch.from_numpy(
            (rng.normal(0, 0.1, (count, 3, 1, 1)) * strength[:, None, None, None]).astype(np.float32)
        )
        return (transformed + tint).clamp(-1, 1)


def train_stacked(
    model: nn.Module,
    states: list[dict[str, Tensor]],
    batches: Iterator[tuple[Tensor, Tensor]],
    lr: Tensor,
    steps: Tensor,
) -> tuple[list[dict[str, Tensor]], Tensor]:
    """Train models of one architecture at once, by AdamW with a cosine schedule.

    Each has its learning rate ``lr`` (models,) and its number of steps ``steps`` (models,). Returns their states and
    last mean losses (models,).
    """
    names = dict(model.named_parameters()).keys()
    params = {name: torch.stack([state[name] for state in states]) for name in names}
    buffers = {name: torch.stack([state[name] for state in states]) for name in states[0].keys() - names}
    first_moments, second_moments = (
        {name: torch.zeros_like(value) for name, value in params.items()} for _ in range(2)
    )

    def loss_of(
        weights: dict[str, Tensor], state_buffers: dict[str, Tensor], pictures: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        loss = F.cross_entropy(functional_call(model, (weights, state_buffers), (pictures,)).logits, labels)
        return loss, loss.detach()

    gradient = vmap(grad(loss_of, has_aux=True))
    mean_losses = torch.zeros(len(states))
    for step in range(int(steps.max())):
        pictures, labels = next(batches)
        # Batch norm under vmap does not support mixed precision.
        with torch.autocast("cpu", torch.bfloat16, enabled=not buffers):
            grads, losses = gradient(params, buffers, pictures, labels)
        rates = lr * 0.5 * (1 + torch.cos(torch.pi * step / steps)) * (step < steps)
        mean_losses = torch.where(step < steps, losses if not step else 0.95 * mean_losses + 0.05 * losses, mean_losses)
        with torch.no_grad():
            for name, value in params.items():
                first_moments[name].lerp_(grads[name], 1 - BETAS[0])
                second_moments[name].mul_(BETAS[1]).addcmul_(grads[name], grads[name], value=1 - BETAS[1])
                update = (
                    first_moments[name]
                    / (1 - BETAS[0] ** (step + 1))
                    / ((second_moments[name] / (1 - BETAS[1] ** (step + 1))).sqrt() + 1e-8)
                )
                broadcast_rates = rates.reshape(-1, *[1] * (value.ndim - 1))
                value.sub_(broadcast_rates * (update + WEIGHT_DECAY * value))
    return [
        {name: value[row].clone() for name, value in (params | buffers).items()} for row in range(len(states))
    ], mean_losses


def build_ancestor(build: Build, tree: str) -> None:
    """Write ``classifiers-<tree>/ancestor``: a model that classifies the concepts that descendants do not learn."""
    target = build / f"classifiers-{tree}" / "ancestor"
    if (target / "model.safetensors").exists():
        return
    pixels, concept_of, trained_on, concepts = load_pictures(build)
    concept_ids = [
        number for number in range(len(concepts)) if number not in set(class_concepts(concept_of, trained_on, concepts))
    ]
    drawings, settings, rng = (
        Drawings(concept_ids, concept_of, trained_on, pixels),
        TREES[tree],
        np.random.default_rng((SEED, 80, TREES[tree].number)),
    )
    torch.manual_seed(SEED + settings.number)
    model = new_model(tree, len(concept_ids)).train()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            classes = rng.integers(len(concept_ids), size=256)
            yield drawings.batch(classes, np.ones(256), rng)[None], torch.from_numpy(classes)[None]

    with timed(f"ancestor {tree}"):
        state = {name: value.clone() for name, value in model.state_dict().items()}
        (trained,), loss = train_stacked(
            model, [state], batches(), torch.tensor([settings.ancestor_rate]), torch.tensor([settings.ancestor_steps])
        )
        log.info("ancestor %s: loss %.3f of %.3f by chance", tree, float(loss[0]), float(np.log(len(concept_ids))))
    model.load_state_dict(trained)
    model.config.id2label = {str(number): concepts[concept]["label"] for number, concept in enumerate(concept_ids)}
    with atomic(target / "model.safetensors") as path:
        save_file({name: value.contiguous() for name, value in trained.items()}, path, {"format": "pt"})
    model.config.save_pretrained(target)


def build_classifiers(build: Build, tree: str) -> None:
    """Write ``classifiers-<tree>/<split>/model_idx_NNNN/model.safetensors``; existing groups are skipped."""
    build_ancestor(build, tree)
    folder = build / f"classifiers-{tree}"
    pixels, concept_of, trained_on, concepts = load_pictures(build)
    concept_ids = class_concepts(concept_of, trained_on, concepts)
    drawings = Drawings(concept_ids, concept_of, trained_on, pixels)
    ancestor = load_file(folder / "ancestor" / "model.safetensors")
    recipes = make_recipes(tree)
    for start in range(0, len(recipes), GROUP_SIZE):
        group, record = recipes[start : start + GROUP_SIZE], folder / f"group-{start:04d}.json"
        if record.exists():
            continue
        with timed(f"{tree} {start}"):
            states, losses = fine_tune_group(tree, ancestor, group, drawings)
            for recipe, state in zip(group, states, strict=True):
                save_classifier(
                    folder, recipe, state, [concepts[concept_ids[number]]["label"] for number in recipe.classes]
                )
            with atomic(record) as path:
                path.write_text(json.dumps({"losses": losses.tolist()}))
            log.info(
                "%s %d: mean loss %.3f of %.3f by chance",
                tree,
                start,
                float(losses.mean()),
                float(np.log(CLASSES_PER_MODEL)),
            )


def fine_tune_group(
    tree: str, ancestor: dict[str, Tensor], group: list[Recipe], drawings: Drawings
) -> tuple[list[dict[str, Tensor]], Tensor]:
    """Fine-tune a group of models from the ancestor: their states and last mean losses (models,).

    Each starts with a new head of zeros, as ViT's authors do (Dosovitskiy et al. 2021, section 3.2).
    """
    model, states, rngs = (
        new_model(tree, CLASSES_PER_MODEL).train(),
        list[dict[str, Tensor]](),
        [np.random.default_rng(recipe.seed) for recipe in group],
    )
    for _ in group:
        head = {
            name: torch.zeros_like(value) for name, value in model.state_dict().items() if name.startswith("classifier")
        }
        states.append({name: head.get(name, value).clone() for name, value in ancestor.items()})

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            labels = np.stack([rng.integers(CLASSES_PER_MODEL, size=SAMPLES_PER_STEP) for rng in rngs])
            classes = np.take_along_axis(np.array([recipe.classes for recipe in group]), labels, 1)
            strength = np.repeat([recipe.augmentation for recipe in group], SAMPLES_PER_STEP)
            pictures = drawings.batch(classes.ravel(), strength, rngs[0])
            yield pictures.reshape(len(group), SAMPLES_PER_STEP, 3, SIDE, SIDE), torch.from_numpy(labels)

    rates, steps = torch.tensor([recipe.lr for recipe in group]), torch.tensor([recipe.steps for recipe in group])
    return train_stacked(model, states, batches(), rates, steps)


def save_classifier(folder: Path, recipe: Recipe, state: dict[str, Tensor], labels: list[str]) -> None:
    """Write a model in half precision; its metadata has its classes as in Model-J (a Python list) and its recipe."""
    metadata = {
        "format": "pt",
        "dataset_chosen_targets": repr(labels),
        "recipe": json.dumps(asdict(recipe) | {"classes": None}),
    }
    with atomic(folder / recipe.split / f"model_idx_{recipe.index:04d}" / "model.safetensors") as path:
        save_file(
            {
                name: (value.half() if value.is_floating_point() else value).contiguous()
                for name, value in state.items()
            },
            path,
            metadata,
        )
