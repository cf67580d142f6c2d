"""Steps ``grown-a`` and ``grown-b``: what experts are grown from, and the real LoRAs that they are measured with.

Grown LoRAs are of words that are not held out, drawn by the base model that ships: two of each word by short trainings,
and one of each by gradients of the same pictures. Real LoRAs are some of the fleet's: of validation concepts, and of
training concepts to stand beside grown ones.
"""

import json
import os
from pathlib import Path

import numpy as np

from loradex.app.growing.folder import check_settings
from loradex.app.growing.options import GrowOptions
from loradex.app.growing.run import GrowRun
from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import Encoder
from scripts.miniature.fleet import TRAINERS, FleetTrainer, chunk_recipes, make_recipes, train_chunks
from scripts.miniature.settings import Build, log, timed

REAL_LORAS = 200  # of training concepts
LORAS_PER_WORD = 2


def grow_pools(build: Build, fleet: str) -> None:
    """Write ``grown-<fleet>``, ``grown-<fleet>-gradients``, ``real-<fleet>-val`` and ``real-<fleet>-train``."""
    concepts = json.loads((build / "concepts.json").read_text())
    words = build / "grown-words.txt"
    words.write_text("\n".join(concept["label"] for concept in concepts if concept["split"] != "heldout") + "\n")
    trained = GrowOptions(words=words, folder=build / f"grown-{fleet}", loras_per_word=LORAS_PER_WORD)
    gradients = GrowOptions(words=words, folder=build / f"grown-{fleet}-gradients", steps=0)
    grow_pool(fleet, trained)
    link_pictures(trained, gradients)
    grow_pool(fleet, gradients)
    for split, count in ("val_holdout", None), ("train", REAL_LORAS):
        with timed(f"real LoRAs of fleet {fleet}, {split}"):
            train_real(build, fleet, split, count)


def grow_pool(fleet: str, options: GrowOptions) -> None:
    """Draw pictures and make LoRAs, as ``loradex grow`` does."""
    run = GrowRun.prepare(f"mini-{fleet}", options)
    check_settings(run.folder, run.settings)

    def report(step: str, done: int, total: int) -> None:
        if done % 1000 < 100:
            log.info("%s: %s %d of %d", run.folder.name, step, done, total)

    with timed(f"pictures of {run.folder.name}"):
        run.make_pictures(Encoder.load(MINIATURE / "encoder"), report)
    with timed(f"LoRAs of {run.folder.name}"):
        run.make_loras(report)


def link_pictures(source: GrowOptions, target: GrowOptions) -> None:
    """Let the concepts of one run have the pictures of the first LoRAs of another."""
    assert source.folder is not None
    assert target.folder is not None
    for picture in sorted(source.folder.rglob("*.png")):
        place = target.folder / picture.relative_to(source.folder)
        if not place.exists() and place.parent.suffix not in {f".{copy + 1}" for copy in range(1, LORAS_PER_WORD)}:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(picture, place)


def train_real(build: Build, fleet: str, split: str, count: int | None) -> None:
    """Train some LoRAs of a fleet, chosen by the seed of the build; existing chunks are skipped."""
    recipes = [recipe for recipe in make_recipes(build, fleet) if recipe.split == split]
    if count is not None:
        recipes = [recipes[row] for row in np.random.default_rng(0).permutation(len(recipes))[:count]]
    folder = real_folder(build, fleet, split)
    trainer = FleetTrainer(build, folder, TRAINERS[fleet])
    train_chunks(folder, chunk_recipes(recipes), lambda chunk: trainer)


def real_folder(build: Build, fleet: str, split: str) -> Path:
    """Where some real LoRAs of a fleet lie."""
    return build / f"real-{fleet}-{split}"
