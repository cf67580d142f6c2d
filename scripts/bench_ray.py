"""``python -m scripts.bench_ray [--made N]``: what ships, and N files made from it, indexed by threads and by a Ray cluster of this machine, as JSON on stdout.

Both fill a zoo of their own from a folder that was just written; Ray's time has the start and the end of its cluster in it.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loradex.app.indexing.file_reader import Engine
from loradex.app.indexing.ingest import index_places
from loradex.app.indexing.local_reading_engine import LocalEngine
from loradex.app.indexing.ray.reading_engine import RayEngine
from loradex.app.paths import MINIATURE
from loradex.index import Zoo
from loradex.retrieval.encoder import Encoder

MADE: Final = 20_000
NOISE: Final = 0.1  # of each weight


def make_files(folder: Path, count: int) -> None:
    """LoRAs that ship, in turn, each with its weights changed a little."""
    shipped = [load_file(path) for path in sorted(MINIATURE.glob("models/mini-*/*/*/*.safetensors"))]
    generator = torch.Generator().manual_seed(0)

    def changed(weights: Tensor) -> Tensor:
        return (weights * (1 + NOISE * torch.randn(weights.shape, generator=generator))).to(weights.dtype)

    for number in range(count):
        tensors = shipped[number % len(shipped)]
        save_file({name: changed(weights) for name, weights in tensors.items()}, folder / f"{number:06}.safetensors")


def seconds(places: Sequence[Path], zoo: Path, encoder: Encoder, engine: Engine) -> float:
    """How long an engine takes to fill a zoo."""
    started = perf_counter()
    index_places(places, zoo, encoder, engine=engine)
    return perf_counter() - started


def compare(first: Path, second: Path) -> dict[str, Any]:
    """Whether two zoos hold the same, and by how much their vectors differ at the most."""
    with Zoo.open(first, read_only=True) as one, Zoo.open(second, read_only=True) as other:
        ids = [model.id for model in one.models()]
        ours, theirs = one.vectors_of(ids), other.vectors_of(ids)
        same = (
            list(one.models()) == list(other.models())
            and one.known_files() == other.known_files()
            and one.fingerprints(ids) == other.fingerprints(ids)
        )
        largest = (
            max(float(np.abs(ours[id] - theirs[id]).max()) for id in ours) if ours.keys() == theirs.keys() else None
        )
        return {"models": len(ids), "same": same, "largest_difference": largest}


def main() -> None:
    """Make the files, index them twice, and print what came of it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--made", type=int, default=MADE, help="how many files are made")
    made = arguments.parse_args().made
    encoder = Encoder.load(MINIATURE / "encoder")
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        (folder / "made").mkdir()
        make_files(folder / "made", made)
        places = [MINIATURE / "models", folder / "made"]
        local = seconds(places, folder / "local", encoder, LocalEngine())
        ray = seconds(places, folder / "ray", encoder, RayEngine(folder / "parts", str(folder / "ray")))
        files = sum(1 for place in places for _ in place.rglob("*.safetensors"))
        said = {
            "processors": os.cpu_count(),
            "files": files,
            "local_s": round(local, 1),
            "ray_s": round(ray, 1),
            "ray_over_local": round(ray / local, 3),
        }
        sys.stdout.write(json.dumps(said | compare(folder / "local", folder / "ray")) + "\n")


if __name__ == "__main__":
    main()
