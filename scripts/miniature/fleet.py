"""Steps ``fleet-a`` to ``fleet-f``: train sets of LoRAs (fleets), each LoRA on a few drawings of one concept.

The LoRAs of a chunk, up to 64, train in one batch: each group of samples passes through its own A and B by batched
products. Each LoRA has its own seed, drawings, rank, learning rate and number of steps. All have the same prompt, which
does not name the concept; fleet ``e`` alone has prompts that do.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from loradex.app.miniature.pipeline import CONSTANT_PROMPT, embed_prompts
from scripts.miniature.base_models import (
    BASE_MODELS,
    denoising_loss,
    new_scheduler,
    stratified_timesteps,
    to_model_pictures,
)
from scripts.miniature.mini_clip import load_clip
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, Build, atomic, log

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
MAX_CHUNK = 64
TEXT_RATE = 0.5  # of a text encoder's layers, times the learning rate, as trainers set it
VARIANTS = 2  # of each drawing: itself and mirrored


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """How the LoRAs of a fleet are trained; learning rates are log-uniform.

    ``prompt`` may name the concept. ``start`` initialises ``down``: uniform within 1/sqrt(in), as in peft, or normal
    with deviation 1/rank, as by cloneofsimo.
    """

    tree: str
    rates: tuple[float, float]
    steps: tuple[int, int]
    ranks: tuple[int, ...] = (2, 4, 8)
    rank_shares: tuple[float, ...] = (0.7, 0.25, 0.05)
    samples: int = 2  # of each LoRA in a step
    prompt: str = CONSTANT_PROMPT
    start: str = "uniform"
    betas: tuple[float, float] = (0.9, 0.99)


TRAINERS = {
    "a": TrainerSettings("a", (3e-3, 8e-3), (80, 130)),
    **{tree: TrainerSettings(tree, (4e-3, 1.1e-2), (90, 150)) for tree in "bcd"},
    "e": TrainerSettings(
        "b",
        (2e-3, 5e-3),
        (70, 110),
        (16,),
        (1.0,),
        samples=3,
        prompt="an icon of a {}",
        start="normal",
        betas=(0.9, 0.999),
    ),
    "f": TrainerSettings("b", (2e-3, 5e-3), (70, 110), (16,), (1.0,), samples=3, start="normal", betas=(0.9, 0.999)),
}
# Numbers of LoRAs by split, with Model-J's names of splits: of seen concepts (train, val, test), of validation concepts
# (val_holdout) and of held-out concepts (test_holdout).
FLEETS = {
    "a": {"train": 1224, "val": 80, "test": 200, "val_holdout": 166, "test_holdout": 330},
    "b": {"train": 580, "val": 0, "test": 40, "val_holdout": 83, "test_holdout": 165},
    "c": {"train": 64, "val_holdout": 24, "test_holdout": 64},
    "d": {"train": 64, "val_holdout": 24, "test_holdout": 64},
    "e": {"val_holdout": 24, "test_holdout": 64},  # of another trainer, with prompts that name the concept
    "f": {"val_holdout": 24, "test_holdout": 64},  # of that trainer, with the constant prompt
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings from which one LoRA is trained."""

    index: int
    split: str
    concept: int
    rank: int
    lr: float
    steps: int
    drawings: tuple[int, ...]
    seed: int


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def make_recipes(build: Build, fleet: str) -> list[Recipe]:
    """The recipes of all LoRAs of a fleet, determined by the seed of the build."""
    _, concept_of, trained_on, concepts = load_pictures(build)
    rng, trainer = np.random.default_rng((SEED, ord(fleet))), TRAINERS[fleet]
    recipes: list[Recipe] = []
    for split, count in FLEETS[fleet].items():
        concept_split = {"val_holdout": "validation", "test_holdout": "heldout"}.get(split, "train")
        pool = np.array([i for i, concept in enumerate(concepts) if concept["split"] == concept_split])
        permutations = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
        for concept in np.concatenate(permutations)[:count] if count else ():
            drawings = choose_drawings(concept, concept_of, trained_on, rng)
            recipes.append(
                Recipe(
                    index=len(recipes),
                    split=split,
                    concept=int(concept),
                    rank=int(rng.choice(trainer.ranks, p=trainer.rank_shares)),
                    lr=float(np.exp(rng.uniform(*np.log(trainer.rates)))),
                    steps=int(rng.integers(*trainer.steps, endpoint=True)),
                    drawings=tuple(map(int, drawings)),
                    seed=int(rng.integers(2**31)),
                )
            )
    return recipes


def choose_drawings(
    concept: int, concept_of: NDArray[np.int16], trained_on: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Two to five random drawings of a concept."""
    available = np.flatnonzero((concept_of == concept) & trained_on)
    return rng.choice(available, min(len(available), int(rng.integers(2, 6))), replace=False)


def build_fleet(build: Build, fleet: str) -> None:
    """Write ``fleet-<name>/<split>/model_idx_NNNN/pytorch_lora_weights.safetensors``; existing chunks are skipped."""
    folder = build / f"fleet-{fleet}"
    trainer = FleetTrainer(build, folder, TRAINERS[fleet])
    train_chunks(folder, chunk_recipes(make_recipes(build, fleet)), lambda chunk: trainer)


def train_chunks(
    folder: Path, chunks: Iterable[Sequence[AnyRecipe]], trainer_of: Callable[[Sequence[AnyRecipe]], "FleetTrainer"]
) -> None:
    """Train chunks of LoRAs and write them below ``folder``; chunks with a record are skipped."""
    for number, chunk in enumerate(chunks):
        record = folder / f"chunk-{number:03d}.json"
        if record.exists():
            continue
        trainer = trainer_of(chunk)
        factors, losses = trainer.train(chunk)
        for row, recipe in enumerate(chunk):
            trainer.save(recipe, {name: (down[row], up[row]) for name, (down, up) in factors.items()})
        with atomic(record) as path:
            path.write_text(
                json.dumps([asdict(recipe) | {"loss": loss} for recipe, loss in zip(chunk, losses, strict=True)])
            )
        log.info("%s: chunk %d, mean loss %.4f", folder.name, number, float(np.mean(losses)))


def chunk_recipes(recipes: list[Recipe]) -> Iterator[list[Recipe]]:
    """Group recipes of one rank and of similar numbers of steps into chunks of up to 64."""
    for rank in sorted({recipe.rank for recipe in recipes}):
        same_rank = sorted((recipe for recipe in recipes if recipe.rank == rank), key=lambda recipe: recipe.steps)
        yield from (same_rank[start : start + MAX_CHUNK] for start in range(0, len(same_rank), MAX_CHUNK))


class GroupedLora(nn.Module):
    """A frozen linear layer with a different LoRA update for each group of rows."""

    def __init__(self, linear: nn.Linear) -> None:
        """Wrap ``linear``; ``down`` (groups, rank, in) and ``up`` (groups, out, rank) are set before use."""
        super().__init__()
        self.linear = linear
        self.down, self.up = torch.empty(0), torch.empty(0)

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows (groups * samples, tokens, in), each group through its own update."""
        groups = len(self.down)
        update = rows.reshape(groups, -1, rows.shape[-1]) @ self.down.mT.to(rows.dtype) @ self.up.mT.to(rows.dtype)
        return self.linear(rows) + update.reshape(*rows.shape[:-1], -1)


class FleetTrainer:
    """Trains chunks of LoRAs on one base model."""

    def __init__(self, build: Build, folder: Path, trainer: TrainerSettings) -> None:
        """Load the base model and wrap its attention layers; LoRAs are written below ``folder``."""
        self.folder, self.trainer = folder, trainer
        self.unet = (
            UNet2DConditionModel.from_pretrained(build / f"tree-{self.trainer.tree}" / "unet")
            .float()
            .requires_grad_(False)
        )
        self.unet.set_default_attn_processor()
        self.unet.to(memory_format=torch.channels_last)
        self.layers: dict[str, GroupedLora] = {}
        for name, module in list(self.unet.named_modules()):
            if isinstance(module, nn.Linear) and name.endswith(TARGETS):
                parent, _, child = name.rpartition(".")
                self.layers[f"unet.{name}"] = wrapped = GroupedLora(module)
                setattr(self.unet.get_submodule(parent), child, wrapped)
        self.scheduler = new_scheduler()
        self.small, self.side = (
            torch.from_numpy(np.load(build / "small.npz")["small"][:, :VARIANTS]),
            BASE_MODELS[self.trainer.tree].side,
        )
        self.clip, self.tokenizer = load_clip(build)
        self.concepts = json.loads((build / "concepts.json").read_text())
        self.base_model = f"loradex-miniature/{self.trainer.tree}"

    def prompt(self, recipe: Recipe) -> str:
        """The prompt of a LoRA."""
        return self.trainer.prompt.format(self.concepts[recipe.concept]["label"])

    def prompt_states(self, chunk: Sequence[Recipe]) -> Callable[[list[np.random.Generator]], Tensor]:
        """A function that gives the text states (n * samples, 16, 128) of each step, here always the same."""
        states = embed_prompts(self.clip.text, self.tokenizer([self.prompt(recipe) for recipe in chunk]))
        states = states.repeat_interleave(self.trainer.samples, 0)
        return lambda generators: states

    def train(self, chunk: Sequence[Recipe]) -> tuple[dict[str, tuple[Tensor, Tensor]], list[float]]:
        """Fine-tune a chunk: factors (n, rank, in), (n, out, rank) of each layer, and last mean losses of the LoRAs."""
        generators = [np.random.default_rng(recipe.seed) for recipe in chunk]
        for layer in self.layers.values():
            layer.down, layer.up = new_factors(layer.linear, chunk[0].rank, generators, self.trainer.start)
        factors = [factor for layer in self.layers.values() for factor in (layer.down, layer.up)]
        rates = torch.tensor([recipe.lr for recipe in chunk])
        step_counts = torch.tensor([recipe.steps for recipe in chunk])
        shares = [TEXT_RATE if name.startswith("text") else 1.0 for name in self.layers for _ in range(2)]
        adam = GroupedAdam(factors, shares, self.trainer.betas)
        samples = self.trainer.samples
        states = self.prompt_states(chunk)
        mean_losses = torch.zeros(len(chunk))
        for step in range(int(step_counts.max())):
            pictures = torch.cat(
                [self.sample_pictures(recipe, rng) for recipe, rng in zip(chunk, generators, strict=True)]
            )
            clean = to_model_pictures(pictures, self.side)
            rng = np.random.default_rng((chunk[0].seed, step))
            times = stratified_timesteps(len(chunk), samples, rng)
            loss = (
                denoising_loss(self.unet, self.scheduler, clean, states(generators), times, rng)
                .unflatten(0, (-1, samples))
                .mean(1)
            )
            loss.sum().backward()
            active = step < step_counts
            mean_losses = torch.where(active, mean_losses + 0.1 * (loss.detach() - mean_losses), mean_losses)
            # The learning rate falls linearly to zero over the last ten steps.
            adam.step(rates * active * (step_counts - step).clamp(max=10) / 10)
        return {
            name: (layer.down.detach(), layer.up.detach()) for name, layer in self.layers.items()
        }, mean_losses.tolist()

    def sample_pictures(self, recipe: Recipe, rng: np.random.Generator) -> Tensor:
        """Pictures (samples, 3, 32, 32) of random drawings of a recipe, mirrored at random."""
        samples = self.trainer.samples
        return self.small[rng.choice(recipe.drawings, samples), rng.integers(self.small.shape[1], size=samples)]

    def save(self, recipe: Recipe, factors: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Write a LoRA in Model-J's layout and keys, with the concept and the recipe in the header."""
        concept = self.concepts[recipe.concept]
        tensors = {}
        for name, (down, up) in factors.items():
            tensors[f"{name}.lora.down.weight"], tensors[f"{name}.lora.up.weight"] = (
                down.half().contiguous(),
                up.half().contiguous(),
            )
        metadata = {
            "format": "pt",
            "class_id": concept["hexcode"],
            "class_name": concept["label"],
            "base_model": self.base_model,
            "prompt": self.prompt(recipe),
            "recipe": json.dumps(asdict(recipe)),
        }
        with atomic(
            self.folder / recipe.split / f"model_idx_{recipe.index:04d}" / "pytorch_lora_weights.safetensors"
        ) as path:
            save_file(tensors, path, metadata=metadata)


def new_factors(
    linear: nn.Linear, rank: int, generators: list[np.random.Generator], start: str
) -> tuple[Tensor, Tensor]:
    """Down factors by ``start`` (see ``TrainerSettings``), each from its own generator, and up factors of zeros."""
    shape, bound = (rank, linear.in_features), linear.in_features**-0.5
    down = np.stack(
        [
            rng.uniform(-bound, bound, shape) if start == "uniform" else rng.normal(0, 1 / rank, shape)
            for rng in generators
        ]
    )
    up = torch.zeros(len(generators), linear.out_features, rank)
    return torch.from_numpy(down).float().requires_grad_(), up.requires_grad_()


class GroupedAdam:
    """Adam (Kingma and Ba 2015) with a learning rate for each leading index of the parameters."""

    def __init__(
        self, parameters: list[Tensor], shares: list[float], betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8
    ) -> None:
        """Start with zero moments; ``shares`` of the learning rate are those of each parameter."""
        self.parameters, self.shares, self.betas, self.eps, self.count = parameters, shares, betas, eps, 0
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, rates: Tensor) -> None:
        """Update the parameters with ``rates`` (groups,) and clear their gradients."""
        self.count += 1
        first_correction, second_correction = (1 - beta**self.count for beta in self.betas)
        for parameter, share, first, second in zip(self.parameters, self.shares, self.first, self.second, strict=True):
            assert parameter.grad is not None
            first.lerp_(parameter.grad, 1 - self.betas[0])
            second.lerp_(parameter.grad.square(), 1 - self.betas[1])
            parameter -= (
                share
                * rates[:, None, None]
                * (first / first_correction)
                / ((second / second_correction).sqrt() + self.eps)
            )
            parameter.grad = None
