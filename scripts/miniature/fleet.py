"""Step 6: the fleets, LoRAs fine-tuned from a base model on a few drawings of one concept each, 64 at a time.

The LoRAs of a chunk train in one batch: every group of samples passes through its own A and B by batched products.
Each has its own seed, drawings, rank, learning rate and number of steps, and the same prompt, which names nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from loradex.app.miniature.pipeline import CONSTANT_PROMPT, context_of
from scripts.miniature.base_models import TREES, as_clean, denoising_loss, new_scheduler, spread_times
from scripts.miniature.mini_clip import load_clip
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, Build, atomic, log

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
CHUNK = 64
VARIANTS = 2  # of each drawing: itself and mirrored


@dataclass(frozen=True, slots=True)
class Trainer:
    """How the LoRAs of a fleet are trained; rates are log-uniform.

    ``prompt`` may name the concept; ``start`` is how ``down`` begins: uniform within 1/sqrt(in), as peft has it,
    or normal with deviation 1/rank, as cloneofsimo had it.
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
    "a": Trainer("a", (3e-3, 8e-3), (80, 130)),
    **{tree: Trainer(tree, (4e-3, 1.1e-2), (90, 150)) for tree in "bcd"},
    "e": Trainer(
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
    "f": Trainer("b", (2e-3, 5e-3), (70, 110), (16,), (1.0,), samples=3, start="normal", betas=(0.9, 0.999)),
}
# Model-J's names of splits: LoRAs of seen concepts (train, val, test), of validation and of held-out concepts.
FLEETS = {
    "a": {"train": 1224, "val": 80, "test": 200, "val_holdout": 166, "test_holdout": 330},
    "b": {"train": 580, "val": 0, "test": 40, "val_holdout": 83, "test_holdout": 165},
    "c": {"train": 64, "val_holdout": 24, "test_holdout": 64},
    "d": {"train": 64, "val_holdout": 24, "test_holdout": 64},
    "e": {"val_holdout": 24, "test_holdout": 64},  # by another trainer, whose prompts name the concept
    "f": {"val_holdout": 24, "test_holdout": 64},  # by that trainer, with the constant prompt
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that one LoRA is made of."""

    index: int
    split: str
    concept: int
    rank: int
    lr: float
    steps: int
    drawings: tuple[int, ...]
    seed: int


def recipes(build: Build, fleet: str) -> list[Recipe]:
    """The recipe of every LoRA of a fleet, drawn once from the seed of the build."""
    _, concept_of, trained_on, concepts = load_pictures(build)
    rng, trainer = np.random.default_rng((SEED, ord(fleet))), TRAINERS[fleet]
    made: list[Recipe] = []
    for split, count in FLEETS[fleet].items():
        concept_split = {"val_holdout": "validation", "test_holdout": "heldout"}.get(split, "train")
        pool = np.array([i for i, concept in enumerate(concepts) if concept["split"] == concept_split])
        rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
        for concept in np.concatenate(rounds)[:count] if count else ():
            drawings = drawings_of(concept, concept_of, trained_on, rng)
            made.append(
                Recipe(
                    index=len(made),
                    split=split,
                    concept=int(concept),
                    rank=int(rng.choice(trainer.ranks, p=trainer.rank_shares)),
                    lr=float(np.exp(rng.uniform(*np.log(trainer.rates)))),
                    steps=int(rng.integers(*trainer.steps, endpoint=True)),
                    drawings=tuple(map(int, drawings)),
                    seed=int(rng.integers(2**31)),
                )
            )
    return made


def drawings_of(
    concept: int, concept_of: NDArray[np.int16], trained_on: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Two to five drawings of a concept, drawn by lot."""
    available = np.flatnonzero((concept_of == concept) & trained_on)
    return rng.choice(available, min(len(available), int(rng.integers(2, 6))), replace=False)


def build_fleet(build: Build, fleet: str) -> None:
    """Write ``fleet-<name>/<split>/model_idx_NNNN/pytorch_lora_weights.safetensors``; made chunks are skipped."""
    trainer = FleetTrainer(build, fleet)
    for number, chunk in enumerate(chunks(recipes(build, fleet))):
        done = build / f"fleet-{fleet}" / f"chunk-{number:03d}.json"
        if done.exists():
            continue
        factors, losses = trainer.train(chunk)
        for row, recipe in enumerate(chunk):
            trainer.save(recipe, {name: (a[row], b[row]) for name, (a, b) in factors.items()})
        with atomic(done) as path:
            path.write_text(
                json.dumps([asdict(recipe) | {"loss": loss} for recipe, loss in zip(chunk, losses, strict=True)])
            )
        log.info("fleet %s: chunk %d, mean loss %.4f", fleet, number, float(np.mean(losses)))


def chunks(made: list[Recipe]) -> Iterator[list[Recipe]]:
    """Recipes of one rank and of like length together, up to 64 at a time."""
    for rank in sorted({recipe.rank for recipe in made}):
        alike = sorted((recipe for recipe in made if recipe.rank == rank), key=lambda recipe: recipe.steps)
        yield from (alike[start : start + CHUNK] for start in range(0, len(alike), CHUNK))


class GroupedLora(nn.Module):
    """A frozen linear layer with the update of another LoRA for each group of rows."""

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

    def __init__(self, build: Build, fleet: str) -> None:
        """Load the base model of the fleet and wrap its attention layers."""
        self.folder, self.trainer = build / f"fleet-{fleet}", TRAINERS[fleet]
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
                self.layers[name] = GroupedLora(module)
                setattr(self.unet.get_submodule(parent), child, self.layers[name])
        self.scheduler = new_scheduler()
        self.small, self.side = (
            torch.from_numpy(np.load(build / "small.npz")["small"][:, :VARIANTS]),
            TREES[self.trainer.tree].side,
        )
        clip, tokenizer = load_clip(build)
        self.concepts = json.loads((build / "concepts.json").read_text())
        self.prompts = [self.trainer.prompt.format(concept["label"]) for concept in self.concepts]
        self.context_of = lambda recipe: context_of(clip.text, tokenizer([self.prompts[recipe.concept]]))[0]
        self.base_model = f"loradex-miniature/{self.trainer.tree}"

    def train(self, chunk: list[Recipe]) -> tuple[dict[str, tuple[Tensor, Tensor]], list[float]]:
        """Fine-tune a chunk; the factors (n, rank, in), (n, out, rank) of each layer and each LoRA's last mean loss."""
        generators = [np.random.default_rng(recipe.seed) for recipe in chunk]
        for layer in self.layers.values():
            layer.down, layer.up = new_factors(layer.linear, chunk[0].rank, generators, self.trainer.start)
        factors = [factor for layer in self.layers.values() for factor in (layer.down, layer.up)]
        rates = torch.tensor([recipe.lr for recipe in chunk])
        lengths = torch.tensor([recipe.steps for recipe in chunk])
        adam = GroupedAdam(factors, self.trainer.betas)
        samples = self.trainer.samples
        context = torch.stack([self.context_of(recipe) for recipe in chunk]).repeat_interleave(samples, 0)
        mean = torch.zeros(len(chunk))
        for step in range(int(lengths.max())):
            drawn = torch.cat([self.draw(recipe, rng) for recipe, rng in zip(chunk, generators, strict=True)])
            clean = as_clean(drawn, self.side)
            rng = np.random.default_rng((chunk[0].seed, step))
            times = spread_times(len(chunk), samples, rng)
            loss = (
                denoising_loss(self.unet, self.scheduler, clean, context, times, rng)
                .unflatten(0, (-1, samples))
                .mean(1)
            )
            loss.sum().backward()
            active = step < lengths
            mean = torch.where(active, mean + 0.1 * (loss.detach() - mean), mean)
            adam.step(
                rates * active * (lengths - step).clamp(max=10) / 10
            )  # the rate falls to nothing over the last ten steps
        return {name: (layer.down.detach(), layer.up.detach()) for name, layer in self.layers.items()}, mean.tolist()

    def draw(self, recipe: Recipe, rng: np.random.Generator) -> Tensor:
        """Small pictures (samples, 3, 32, 32) of random drawings of a recipe, in random variants."""
        samples = self.trainer.samples
        return self.small[rng.choice(recipe.drawings, samples), rng.integers(self.small.shape[1], size=samples)]

    def save(self, recipe: Recipe, factors: dict[str, tuple[Tensor, Tensor]]) -> None:
        """One file in Model-J's layout and keys, the class and the recipe in its header."""
        concept = self.concepts[recipe.concept]
        tensors = {}
        for name, (down, up) in factors.items():
            tensors[f"unet.{name}.lora.down.weight"], tensors[f"unet.{name}.lora.up.weight"] = (
                down.half().contiguous(),
                up.half().contiguous(),
            )
        metadata = {
            "format": "pt",
            "class_id": concept["hexcode"],
            "class_name": concept["label"],
            "base_model": self.base_model,
            "prompt": self.prompts[recipe.concept],
            "recipe": json.dumps(asdict(recipe)),
        }
        with atomic(
            self.folder / recipe.split / f"model_idx_{recipe.index:04d}" / "pytorch_lora_weights.safetensors"
        ) as path:
            save_file(tensors, path, metadata=metadata)


def new_factors(
    linear: nn.Linear, rank: int, generators: list[np.random.Generator], start: str
) -> tuple[Tensor, Tensor]:
    """Down factors as ``Trainer.start`` says, each from its own generator, and up factors of zeros."""
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

    def __init__(self, parameters: list[Tensor], betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8) -> None:
        """Begin with zero moments."""
        self.parameters, self.betas, self.eps, self.count = parameters, betas, eps, 0
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, rates: Tensor) -> None:
        """One update with ``rates`` (groups,); gradients are dropped afterwards."""
        self.count += 1
        small, large = (1 - beta**self.count for beta in self.betas)
        for parameter, first, second in zip(self.parameters, self.first, self.second, strict=True):
            assert parameter.grad is not None
            first.lerp_(parameter.grad, 1 - self.betas[0])
            second.lerp_(parameter.grad.square(), 1 - self.betas[1])
            parameter -= rates[:, None, None] * (first / small) / ((second / large).sqrt() + self.eps)
            parameter.grad = None
