"""Steps ``captions-…``: fleets of LoRAs whose captions name what they draw, to read words from their weights.

Captions hold one label, a trigger word that means nothing, or several words. Two trainers, ranks 2 to 32, several
templates; some LoRAs train the text encoder too. A fleet ``v`` is of validation concepts, others of held-out ones.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from loradex.app.bases.shipped import shipped_base
from loradex.app.miniature.pipeline import CONTEXT_LENGTH, embed_prompts
from loradex.retrieval.measure.nonsense import nonsense_words
from loradex.retrieval.text_states import PromptEncoder
from scripts.miniature.fleet import (
    MAX_CHUNK,
    FleetTrainer,
    GroupedLora,
    Recipe,
    TrainerSettings,
    choose_drawings,
    train_chunks,
)
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, Build, atomic
from scripts.miniature.words import captions_of

TEMPLATES: Final = (  # of captions, and how often each is used
    ("an icon of a {}", 0.5),
    ("{}", 0.125),
    ("a photo of a {}", 0.125),
    ("best quality, {}, simple background", 0.125),
    ("{} in flat style", 0.125),
)
SHUFFLED: Final = 4  # captions of a LoRA whose words are shuffled; half of those with several words
TRAINERS: Final = {  # with their learning rates and steps as for other fleets of the miniature
    "normal": TrainerSettings("", (2e-3, 5e-3), (70, 110), samples=3, start="normal", betas=(0.9, 0.999)),
    "uniform": TrainerSettings("", (4e-3, 1.1e-2), (90, 150)),
}


@dataclass(frozen=True, slots=True)
class Group:
    """LoRAs of a fleet that are trained alike."""

    kind: str  # label, trigger or several
    trainer: str
    rank: int
    count: int
    trains_text: bool = False


GROUPS: Final = (
    Group("label", "normal", 16, 32),
    Group("label", "uniform", 2, 16),
    Group("label", "uniform", 8, 16),
    Group("trigger", "normal", 16, 32),
    Group("trigger", "uniform", 8, 16),
    Group("trigger", "normal", 32, 16),
    Group("several", "normal", 16, 32),
    Group("several", "uniform", 8, 16),
    Group("several", "uniform", 4, 16),
    Group("label", "uniform", 8, 16, trains_text=True),
    Group("trigger", "normal", 16, 32, trains_text=True),
)
# By fleet: the base model, the split of the concepts, and the groups.
FLEETS: Final = {
    "bv": ("b", "val_holdout", GROUPS),
    "b1": ("b", "test_holdout", GROUPS),
    "b2": ("b", "test_holdout", GROUPS),
    "b3": ("b", "test_holdout", GROUPS),
    "a1": ("a", "test_holdout", (Group("label", "normal", 16, 48), Group("trigger", "normal", 16, 64))),
}


@dataclass(frozen=True, slots=True)
class CaptionRecipe(Recipe):
    """The settings from which one LoRA is trained.

    Attributes:
        captions: of which each sample of a step has one.
        words: of the captions, without the words of the template.
    """

    kind: str
    trainer: str
    trains_text: bool
    captions: tuple[str, ...]
    words: tuple[str, ...]


def make_caption_recipes(build: Build, fleet: str) -> list[CaptionRecipe]:
    """The recipes of all LoRAs of a fleet, determined by the seed of the build."""
    _, split, groups = FLEETS[fleet]
    _, concept_of, trained_on, concepts = load_pictures(build)
    rng = np.random.default_rng((SEED, *fleet.encode()))
    wanted = "validation" if split == "val_holdout" else "heldout"
    pool = np.array([number for number, concept in enumerate(concepts) if concept["split"] == wanted])
    total = sum(group.count for group in groups)
    triggers = iter(nonsense_words(total, rng, {word for concept in concepts for word in captions_of(concept)}))
    recipes: list[CaptionRecipe] = []
    for group in groups:
        settings = TRAINERS[group.trainer]
        for concept in rng.permutation(np.resize(rng.permutation(pool), group.count)):
            captions, words = make_captions(group.kind, captions_of(concepts[concept]), next(triggers), rng)
            recipes.append(
                CaptionRecipe(
                    index=len(recipes),
                    split=split,
                    concept=int(concept),
                    rank=group.rank,
                    lr=float(np.exp(rng.uniform(*np.log(settings.rates)))),
                    steps=int(rng.integers(*settings.steps, endpoint=True)),
                    drawings=tuple(map(int, choose_drawings(concept, concept_of, trained_on, rng))),
                    seed=int(rng.integers(2**31)),
                    kind=group.kind,
                    trainer=group.trainer,
                    trains_text=group.trains_text,
                    captions=captions,
                    words=words,
                )
            )
    return recipes


def make_captions(
    kind: str, label_and_tags: Sequence[str], trigger: str, rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The captions of a LoRA, and the words in them that are not the template's."""
    label, *tags = label_and_tags
    templates, shares = [text for text, _ in TEMPLATES], [share for _, share in TEMPLATES]
    if kind != "several":
        word = label if kind == "label" else trigger
        return (str(rng.choice(templates, p=shares)).format(word),), (word,)
    # the trigger word first, as people put it, and words that fit into what the base model attends to
    words = [
        trigger,
        label,
        *map(str, rng.permutation([tag for tag in tags if " " not in tag and tag not in label])[:2]),
    ]
    orders = [words] if rng.random() < 0.5 else [[trigger, *rng.permutation(words[1:])] for _ in range(SHUFFLED)]
    return tuple(", ".join(order) for order in orders), tuple(words)


def caption_chunks(recipes: Sequence[CaptionRecipe]) -> Iterator[list[CaptionRecipe]]:
    """Group recipes that are trained alike, and of similar numbers of steps, into chunks of up to 64."""
    kinds = sorted({(recipe.trains_text, recipe.trainer, recipe.rank) for recipe in recipes})
    for kind in kinds:
        alike = [recipe for recipe in recipes if (recipe.trains_text, recipe.trainer, recipe.rank) == kind]
        alike.sort(key=lambda recipe: recipe.steps)
        yield from (alike[start : start + MAX_CHUNK] for start in range(0, len(alike), MAX_CHUNK))


class CaptionTrainer(FleetTrainer):
    """Trains chunks of LoRAs, each with its own captions."""

    def __init__(self, build: Build, folder: Path, trainer: TrainerSettings, *, trains_text: bool) -> None:
        """Load the base model, and wrap the layers of its text encoder too if they are trained."""
        super().__init__(build, folder, trainer)
        self.text_encoder = None
        if trains_text:
            self.text_encoder = PromptEncoder.load(shipped_base(f"mini-{trainer.tree}")).models["text_encoder"]
            for name, module in list(self.text_encoder.named_modules()):
                if isinstance(module, nn.Linear):
                    parent, _, child = name.rpartition(".")
                    self.layers[f"text_encoder.text_model.{name}"] = wrapped = GroupedLora(module)
                    setattr(self.text_encoder.get_submodule(parent), child, wrapped)

    def prompt(self, recipe: Recipe) -> str:
        """The captions of a LoRA, one a line."""
        assert isinstance(recipe, CaptionRecipe)
        return "\n".join(recipe.captions)

    def prompt_states(self, chunk: Sequence[Recipe]) -> Callable[[list[np.random.Generator]], Tensor]:
        """A function that gives the text states (n * samples, 16, 128) of random captions for each step."""
        tokens = [self.tokenizer(self.prompt(recipe).split("\n"))[:, :CONTEXT_LENGTH] for recipe in chunk]
        states = tokens if self.text_encoder else [embed_prompts(self.clip.text, texts) for texts in tokens]

        def sample(generators: list[np.random.Generator]) -> Tensor:
            chosen = [
                each[rng.integers(len(each), size=self.trainer.samples)]
                for each, rng in zip(states, generators, strict=True)
            ]
            return self.text_encoder(torch.cat(chosen)).last_hidden_state if self.text_encoder else torch.cat(chosen)

        return sample


def build_caption_fleet(build: Build, fleet: str) -> None:
    """Write ``captions-<fleet>/<split>/model_idx_NNNN/…`` and their list; existing chunks are skipped."""
    folder = build / f"captions-{fleet}"

    def trainer_of(chunk: Sequence[CaptionRecipe]) -> CaptionTrainer:
        settings = replace(TRAINERS[chunk[0].trainer], tree=FLEETS[fleet][0])
        return CaptionTrainer(build, folder, settings, trains_text=chunk[0].trains_text)

    recipes = make_caption_recipes(build, fleet)
    train_chunks(folder, caption_chunks(recipes), trainer_of)
    rows = [
        {"file": f"{recipe.split}/model_idx_{recipe.index:04d}/pytorch_lora_weights.safetensors"}
        | {name: getattr(recipe, name) for name in ("kind", "captions", "words", "trains_text")}
        for recipe in recipes
    ]
    with atomic(folder / "captions.json") as path:
        path.write_text(json.dumps(rows))
