"""``python -m scripts.lookalikes [--build FOLDER] [FILE ...]``: measures how well fingerprints find look-alikes.

Look-alikes are re-saves, resized copies and merges, made from the shipped LoRAs of the first model tree and from any
FILE. With the miniature's build folder, earlier checkpoints are trained too. Prints JSON.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loradex.app.paths import MINIATURE
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lora import LayerUpdate, LoraFile, Update
from scripts.miniature.fleet import TRAINERS, FleetTrainer, chunk_recipes, make_recipes
from scripts.miniature.settings import Build

Updates = Mapping[str, Update]
QUANTILES = (0.0, 0.01, 0.5, 0.99, 1.0)
CHECKPOINT_SHARES = (0.5, 0.75)  # shares of the steps


def true_cosine(first: Updates, second: Updates) -> float:
    """The cosine of two LoRAs' updates over all layers, from their factors."""
    return inner_product(first, second) / max(
        (inner_product(first, first) * inner_product(second, second)) ** 0.5, 1e-30
    )


def inner_product(first: Updates, second: Updates) -> float:
    """The sum of <dW1, dW2> over the layers that both have in the same shape."""
    common = [layer for layer in first.keys() & second.keys() if first[layer].shape == second[layer].shape]
    return sum(
        float(((first[layer].up.mT @ second[layer].up) * (first[layer].down @ second[layer].down.mT)).double().sum())
        for layer in common
    )


def layer_shapes(updates: Updates) -> dict[str, tuple[int, int]]:
    """The shape (out, in) of each layer."""
    return {layer: update.shape for layer, update in updates.items()}


def map_layers(updates: Updates, function: Callable[[Update], LayerUpdate]) -> Updates:
    """Apply a function to the update of each layer."""
    return {layer: function(update) for layer, update in updates.items()}


def cast_to(dtype: torch.dtype) -> Callable[[Update], LayerUpdate]:
    """A function that rounds both factors to another precision."""
    return lambda update: LayerUpdate(update.down.to(dtype).float(), update.up.to(dtype).float())


def scaled(factor: float) -> Callable[[Update], LayerUpdate]:
    """A function that multiplies an update by a number."""
    return lambda update: LayerUpdate(update.down, update.up * factor)


def reduced_rank(rank: Callable[[int], int]) -> Callable[[Update], LayerUpdate]:
    """A function that replaces an update by its best approximation of a lower rank, by SVD of the factors."""

    def change(update: Update) -> LayerUpdate:
        (q1, r1), (q2, r2) = torch.linalg.qr(update.up), torch.linalg.qr(update.down.mT)
        u, s, v = torch.linalg.svd(r1 @ r2.mT)
        kept = rank(update.rank)
        return LayerUpdate(v[:kept] @ q2.mT, q1 @ u[:, :kept] * s[:kept])

    return change


def merge(first: Updates, second: Updates, share: float) -> Updates:
    """A weighted sum of two LoRAs, by stacking their factors."""
    return {
        layer: LayerUpdate(
            torch.cat([first[layer].down, second[layer].down]),
            torch.cat([share * first[layer].up, (1 - share) * second[layer].up], 1),
        )
        for layer in first.keys() & second.keys()
    }


def make_variants(all_updates: list[Updates]) -> Iterator[tuple[str, Updates, Updates]]:
    """Triples (kind, original, variant) for all variants that are computed from the files."""
    for number, original in enumerate(all_updates):
        other = next(
            (
                update
                for update in (*all_updates[:number][::-1], *all_updates[::-1])
                if update is not original and layer_shapes(update) == layer_shapes(original)
            ),
            None,
        )
        yield "saved as bfloat16", original, map_layers(original, cast_to(torch.bfloat16))
        yield "saved as float8 (e4m3)", original, map_layers(original, cast_to(torch.float8_e4m3fn))
        yield (
            "half the strength",
            original,
            map_layers(original, lambda update: LayerUpdate(update.down, update.up / 2)),
        )
        yield "half the rank", original, map_layers(original, reduced_rank(lambda rank: max(1, rank // 2)))
        yield "rank 1", original, map_layers(original, reduced_rank(lambda rank: 1))
        if other is None:
            continue
        balanced = merge(
            original,
            map_layers(other, scaled((inner_product(original, original) / inner_product(other, other)) ** 0.5)),
            0.5,
        )
        yield "merged half and half", original, balanced
        yield (
            "merged half and half, then cut to the rank",
            original,
            map_layers(balanced, reduced_rank(lambda rank: rank // 2)),
        )
        yield "merged 0.8 and 0.2", original, merge(original, other, 0.8)


def retrain_checkpoints(build: Build) -> Iterator[tuple[str, Updates, Updates]]:
    """Triples (kind, final, earlier checkpoint) of LoRAs trained with the same seeds, drawings and noise."""
    trainer, chunk = (
        FleetTrainer(build, build / "fleet-a", TRAINERS["a"]),
        next(chunk_recipes(make_recipes(build, "a"))),
    )
    finals = split_loras(trainer.train(chunk)[0])
    for share in CHECKPOINT_SHARES:
        for final, earlier in zip(
            finals,
            split_loras(trainer.train([replace(recipe, steps=round(share * recipe.steps)) for recipe in chunk])[0]),
            strict=True,
        ):
            yield f"checkpoint after {share:.0%} of the steps", final, earlier


def split_loras(factors: dict[str, tuple[Tensor, Tensor]]) -> list[Updates]:
    """Split the stacked factors of a chunk into LoRAs."""
    count = len(next(iter(factors.values()))[0])
    return [{f"unet.{name}": LayerUpdate(down[i], up[i]) for name, (down, up) in factors.items()} for i in range(count)]


def compare_fingerprints(pairs: Iterator[tuple[str, Updates, Updates]]) -> dict[str, list[tuple[float, float]]]:
    """Pairs (estimated, true cosine) by kind."""
    cosines: dict[str, list[tuple[float, float]]] = {}
    for kind, first, second in pairs:
        estimate = Fingerprint.of(first.items()).cosine(
            Fingerprint.from_bytes(Fingerprint.of(second.items()).to_bytes())
        )
        cosines.setdefault(kind, []).append((estimate, true_cosine(first, second)))
    return cosines


def compare_strangers(loras: list[LoraFile], concepts: list[str | None]) -> dict[str, list[tuple[float, float]]]:
    """Pairs (estimated, true cosine) of every two LoRAs; two trainings on one concept are a kind of their own."""
    all_updates = [lora.updates() for lora in loras]
    fingerprints = [Fingerprint.of(updates.items()) for updates in all_updates]
    cosines: dict[str, list[tuple[float, float]]] = {"strangers": [], "two trainings on one concept": []}
    for i, j in combinations(range(len(loras)), 2):
        kind = "two trainings on one concept" if concepts[i] and concepts[i] == concepts[j] else "strangers"
        cosines[kind].append((fingerprints[i].cosine(fingerprints[j]), true_cosine(all_updates[i], all_updates[j])))
    return cosines


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path)
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    loras = [
        LoraFile.open(path) for path in (*sorted(MINIATURE.glob("models/mini-a/*/*/*.safetensors")), *arguments.files)
    ]
    if arguments.build:  # all LoRAs of held-out concepts: two of each concept, not all of which ship
        shipped = {lora.id for lora in loras}
        heldout_loras = [
            LoraFile.open(path)
            for path in sorted((arguments.build / "fleet-a" / "test_holdout").glob("*/*.safetensors"))
        ]
        loras += [lora for lora in heldout_loras if lora.id not in shipped]
    cosines_by_kind = compare_strangers(loras, [lora.header.metadata.get("class_name") for lora in loras])
    cosines_by_kind |= compare_fingerprints(make_variants([lora.updates() for lora in loras]))
    if arguments.build:
        cosines_by_kind |= compare_fingerprints(retrain_checkpoints(Build(arguments.build)))
    rows = {}
    for kind, cosines in cosines_by_kind.items():
        if cosines:
            estimated, true = np.array(cosines).T
            quantiles = {str(q): round(float(np.quantile(estimated, q)), 3) for q in QUANTILES}
            rows[kind] = {
                "n": len(cosines),
                "quantiles": quantiles,
                "error": round(float(np.sqrt(np.mean((estimated - true) ** 2))), 4),
            }
    sys.stdout.write(json.dumps({"loras": len(loras), "kinds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
