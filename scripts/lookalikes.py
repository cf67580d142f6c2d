"""``python -m scripts.lookalikes [--build FOLDER] [FILE ...]``: how well fingerprints tell copies, re-saves, merges and checkpoints from strangers.

Takes the LoRAs of the first tree that ship, and any files besides. With the miniature's build folder it also trains earlier checkpoints.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loradex.app.paths import MINIATURE
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lora import LayerUpdate, LoraFile
from scripts.miniature.fleet import FleetTrainer, chunks, recipes
from scripts.miniature.settings import Build

Updates = dict[str, LayerUpdate]
QUANTILES = (0.0, 0.01, 0.5, 0.99, 1.0)
CHECKPOINTS = (0.5, 0.75)  # of the steps


def true_cosine(one: Updates, other: Updates) -> float:
    """The cosine of two whole updates, from their factors."""
    return inner(one, other) / max((inner(one, one) * inner(other, other)) ** 0.5, 1e-30)


def inner(one: Updates, other: Updates) -> float:
    """The sum over common layers of <dW1, dW2>."""
    common = [layer for layer in one.keys() & other.keys() if one[layer].shape == other[layer].shape]
    return sum(float(((one[n].up.mT @ other[n].up) * (one[n].down @ other[n].down.mT)).double().sum()) for n in common)


def shapes(updates: Updates) -> dict[str, tuple[int, int]]:
    """(out, in) of every layer."""
    return {layer: update.shape for layer, update in updates.items()}


def each(updates: Updates, change: Callable[[LayerUpdate], LayerUpdate]) -> Updates:
    """A change of every layer."""
    return {layer: change(update) for layer, update in updates.items()}


def as_dtype(dtype: torch.dtype) -> Callable[[LayerUpdate], LayerUpdate]:
    """Both factors saved in another precision."""
    return lambda update: LayerUpdate(update.down.to(dtype).float(), update.up.to(dtype).float())


def strengthened(by: float) -> Callable[[LayerUpdate], LayerUpdate]:
    """Multiply an update by a number."""
    return lambda update: LayerUpdate(update.down, update.up * by)


def resized(rank: Callable[[int], int]) -> Callable[[LayerUpdate], LayerUpdate]:
    """The best update of a lower rank, by SVD of the factors."""

    def change(update: LayerUpdate) -> LayerUpdate:
        (q1, r1), (q2, r2) = torch.linalg.qr(update.up), torch.linalg.qr(update.down.mT)
        u, s, v = torch.linalg.svd(r1 @ r2.mT)
        kept = rank(update.rank)
        return LayerUpdate(v[:kept] @ q2.mT, q1 @ u[:, :kept] * s[:kept])

    return change


def merged(one: Updates, other: Updates, share: float) -> Updates:
    """A weighted sum of two LoRAs, by stacking their factors."""
    return {
        n: LayerUpdate(
            torch.cat([one[n].down, other[n].down]), torch.cat([share * one[n].up, (1 - share) * other[n].up], 1)
        )
        for n in one.keys() & other.keys()
    }


def variants(all_updates: list[Updates]) -> Iterator[tuple[str, Updates, Updates]]:
    """(kind, original, variant) of everything that is made from the files themselves."""
    for number, one in enumerate(all_updates):
        other = next(
            (u for u in (*all_updates[:number][::-1], *all_updates[::-1]) if u is not one and shapes(u) == shapes(one)),
            None,
        )
        yield "saved as bfloat16", one, each(one, as_dtype(torch.bfloat16))
        yield "saved as float8 (e4m3)", one, each(one, as_dtype(torch.float8_e4m3fn))
        yield "half the strength", one, each(one, lambda u: LayerUpdate(u.down, u.up / 2))
        yield "half the rank", one, each(one, resized(lambda rank: max(1, rank // 2)))
        yield "rank 1", one, each(one, resized(lambda rank: 1))
        if other is None:
            continue
        balanced = merged(one, each(other, strengthened((inner(one, one) / inner(other, other)) ** 0.5)), 0.5)
        yield "merged half and half", one, balanced
        yield "merged half and half, then cut to the rank", one, each(balanced, resized(lambda rank: rank // 2))
        yield "merged 0.8 and 0.2", one, merged(one, other, 0.8)


def checkpoints(build: Build) -> Iterator[tuple[str, Updates, Updates]]:
    """(kind, end, earlier) of a chunk of LoRAs trained again and stopped early; the same seeds, drawings and noise."""
    trainer, chunk = FleetTrainer(build, "a"), next(chunks(recipes(build, "a")))
    ends = as_updates(trainer.train(chunk)[0])
    for share in CHECKPOINTS:
        for end, early in zip(
            ends, as_updates(trainer.train([replace(r, steps=round(share * r.steps)) for r in chunk])[0]), strict=True
        ):
            yield f"checkpoint after {share:.0%} of the steps", end, early


def as_updates(factors: dict[str, tuple[Tensor, Tensor]]) -> list[Updates]:
    """The LoRAs of a chunk."""
    count = len(next(iter(factors.values()))[0])
    return [{f"unet.{name}": LayerUpdate(down[i], up[i]) for name, (down, up) in factors.items()} for i in range(count)]


def compare(pairs: Iterator[tuple[str, Updates, Updates]]) -> dict[str, list[tuple[float, float]]]:
    """(estimated, true) cosines by kind."""
    found: dict[str, list[tuple[float, float]]] = {}
    for kind, one, other in pairs:
        estimate = Fingerprint.of(one.items()).cosine(Fingerprint.from_bytes(Fingerprint.of(other.items()).to_bytes()))
        found.setdefault(kind, []).append((estimate, true_cosine(one, other)))
    return found


def strangers(loras: list[LoraFile], concepts: list[str | None]) -> dict[str, list[tuple[float, float]]]:
    """Estimated and true cosines of every two LoRAs, apart for two trainings on one concept."""
    all_updates = [lora.updates() for lora in loras]
    prints = [Fingerprint.of(updates.items()) for updates in all_updates]
    found: dict[str, list[tuple[float, float]]] = {"strangers": [], "two trainings on one concept": []}
    for i, j in combinations(range(len(loras)), 2):
        kind = "two trainings on one concept" if concepts[i] and concepts[i] == concepts[j] else "strangers"
        found[kind].append((prints[i].cosine(prints[j]), true_cosine(all_updates[i], all_updates[j])))
    return found


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path)
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    loras = [
        LoraFile.open(path) for path in (*sorted(MINIATURE.glob("models/mini-a/*/*/*.safetensors")), *arguments.files)
    ]
    if arguments.build:  # two trainings on each held-out concept, from a fleet that does not ship whole
        shipped = {lora.id for lora in loras}
        twins = [
            LoraFile.open(path)
            for path in sorted((arguments.build / "fleet-a" / "test_holdout").glob("*/*.safetensors"))
        ]
        loras += [lora for lora in twins if lora.id not in shipped]
    found = strangers(loras, [lora.header.metadata.get("class_name") for lora in loras])
    found |= compare(variants([lora.updates() for lora in loras]))
    if arguments.build:
        found |= compare(checkpoints(Build(arguments.build)))
    rows = {}
    for kind, cosines in found.items():
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
