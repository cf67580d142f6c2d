"""What the tests of zoos share: seeded models, and an oracle by brute force, without SQLite, FAISS or Milvus."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loradex.index import FoundBy, Hit, Model

DIM = 12
SPACE = "words-1"
PYTHONPATH = os.pathsep.join([str(Path(__file__).parents[2] / "src"), str(Path(__file__).parent)])  # of child processes
Array = NDArray[np.float32]
State = dict[str, Array]  # the vectors in a zoo, by model id


def model(id: str, name: str = "a LoRA") -> Model:
    """A model found by its weights."""
    return Model(
        id,
        name,
        "sd-1.5",
        FoundBy.WEIGHTS,
        path=f"/loras/{id}.safetensors",
        concept="dog",
        facts={"rank": 4, "tags": ["a", "b"]},
    )


def models(ids: Iterable[str]) -> list[Model]:
    """Models of several ids."""
    return [model(id) for id in ids]


def random_vectors(n: int, seed: int = 0, dim: int = DIM) -> Array:
    """Random vectors (n, dim) of different lengths, the same for a seed."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, dim)) * rng.uniform(0.01, 100, size=(n, 1))).astype(np.float32)


def unit(vector: Array) -> Array:
    """A vector (dim,) at length 1."""
    return (vector / np.linalg.norm(vector.astype(np.float64))).astype(np.float32)


def nearest(state: State, query: Array, k: int) -> list[tuple[str, float]]:
    """The ids and cosines of the ``k`` best vectors by brute force, ties in order of id."""
    scores = {
        id: float(unit(vector).astype(np.float64) @ unit(query).astype(np.float64)) for id, vector in state.items()
    }
    return sorted(scores.items(), key=lambda pair: (-round(pair[1], 12), pair[0]))[:k]


def same(hits: list[Hit], expected: list[tuple[str, float]]) -> bool:
    """Whether hits have the expected ids in order, and the expected scores but for rounding."""
    return [hit.model.id for hit in hits] == [id for id, _ in expected] and np.allclose(
        [hit.score for hit in hits], [score for _, score in expected], rtol=0, atol=1e-6
    )
