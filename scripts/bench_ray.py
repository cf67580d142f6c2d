"""``python -m scripts.bench_ray [--made N]``: indexes LoRAs with threads and with Ray and prints JSON.

Indexed are the shipped LoRAs and N files generated from them; Ray's cluster is on this machine. Each way fills a new
zoo from a folder that was just written; Ray's time includes the start and the end of its cluster.
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

from loradex.app.indexing.ingest import index_places
from loradex.app.indexing.local_reading_engine import LocalReadingEngine
from loradex.app.indexing.ray.reading_engine import RayReadingEngine
from loradex.app.indexing.reading_engines import ReadingEngine
from loradex.app.paths import MINIATURE
from loradex.index import Zoo
from loradex.retrieval.encoder import Encoder

DEFAULT_MADE: Final = 20_000
NOISE: Final = 0.1  # of each weight


def make_files(folder: Path, count: int) -> None:
    """Write ``count`` variants of the shipped LoRAs, their weights changed by a little noise."""
    shipped_loras = [load_file(path) for path in sorted(MINIATURE.glob("models/mini-*/*/*/*.safetensors"))]
    generator = torch.Generator().manual_seed(0)

    def perturb(weights: Tensor) -> Tensor:
        return (weights * (1 + NOISE * torch.randn(weights.shape, generator=generator))).to(weights.dtype)

    for number in range(count):
        tensors = shipped_loras[number % len(shipped_loras)]
        save_file({name: perturb(weights) for name, weights in tensors.items()}, folder / f"{number:06}.safetensors")


def time_indexing(places: Sequence[Path], zoo: Path, encoder: Encoder, engine: ReadingEngine) -> float:
    """Seconds that an engine takes to fill a zoo."""
    started = perf_counter()
    index_places(places, zoo, encoder, engine=engine)
    return perf_counter() - started


def compare_zoos(first: Path, second: Path) -> dict[str, Any]:
    """Whether two zoos hold the same models, files and fingerprints, and the largest difference of their vectors."""
    with Zoo.open(first, read_only=True) as first_zoo, Zoo.open(second, read_only=True) as second_zoo:
        ids = [model.id for model in first_zoo.models()]
        first_vectors, second_vectors = first_zoo.vectors_by_id(ids), second_zoo.vectors_by_id(ids)
        equal = (
            list(first_zoo.models()) == list(second_zoo.models())
            and first_zoo.known_files() == second_zoo.known_files()
            and first_zoo.fingerprints(ids) == second_zoo.fingerprints(ids)
        )
        largest_difference = (
            max(float(np.abs(first_vectors[id] - second_vectors[id]).max()) for id in first_vectors)
            if first_vectors.keys() == second_vectors.keys()
            else None
        )
        return {"models": len(ids), "same": equal, "largest_difference": largest_difference}


def main() -> None:
    """Generate the files, index them both ways, and print times and differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--made", type=int, default=DEFAULT_MADE, help="number of files to generate")
    made = parser.parse_args().made
    encoder = Encoder.load(MINIATURE / "encoder")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "made").mkdir()
        make_files(folder / "made", made)
        places = [MINIATURE / "models", folder / "made"]
        local = time_indexing(places, folder / "local", encoder, LocalReadingEngine())
        ray = time_indexing(places, folder / "ray", encoder, RayReadingEngine(folder / "parts", str(folder / "ray")))
        files = sum(1 for place in places for _ in place.rglob("*.safetensors"))
        timings = {
            "processors": os.cpu_count(),
            "files": files,
            "local_s": round(local, 1),
            "ray_s": round(ray, 1),
            "ray_over_local": round(ray / local, 3),
        }
        sys.stdout.write(json.dumps(timings | compare_zoos(folder / "local", folder / "ray")) + "\n")


if __name__ == "__main__":
    main()
