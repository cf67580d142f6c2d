"""What the tests of zoos share: seeded models, and an oracle by brute force, without SQLite, FAISS or Milvus."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loradex.index import Evidence, Hit, Model, Position, Positions, Zoo

DIM = 12
SPACE = "words-1"
PYTHONPATH = os.pathsep.join(
    [str(Path(__file__).parents[2] / "src"), str(Path(__file__).parents[2])]
)  # of child processes
KINDS = (Evidence.PICTURE, Evidence.WORDS, Evidence.PREVIEW)
Array = NDArray[np.float32]
Given = Array | Positions  # a vector stands for a position by pictures, scored by the cosine
State = Mapping[str, Given]  # what gives the models of a zoo their positions, by id


def model(id: str, name: str = "a LoRA") -> Model:
    """A model."""
    return Model(
        id,
        name,
        "sd-1.5",
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


def random_positions(n: int, seed: int = 0) -> list[dict[Evidence, Position]]:
    """The positions of ``n`` models by one to three kinds of evidence, of different scales, the same for a seed."""
    rng = np.random.default_rng(seed)
    chosen = [[kind for kind in KINDS if rng.random() < 0.6] or [KINDS[number % 3]] for number in range(n)]
    scales = rng.uniform(5, 30, size=3)
    return [
        {
            kind: Position(rng.normal(size=DIM).astype(np.float32), scale, rng.normal())
            for kind, scale in zip(KINDS, scales, strict=True)
            if kind in kinds
        }
        for kinds in chosen
    ]


def positions_of(given: Given) -> Positions:
    """What a zoo stores: positions with vectors at length 1."""
    positions = given if isinstance(given, Mapping) else {Evidence.PICTURE: Position(given)}
    return {
        kind: Position(unit(positions[kind].vector), positions[kind].scale, positions[kind].bias)
        for kind in KINDS
        if kind in positions
    }


def score(position: Position, query: Array, scale: float = 1.0) -> float:
    """The score of a position for a query of any length with a scale, in float64."""
    cosine = float(position.vector.astype(np.float64) @ unit(query).astype(np.float64))
    return position.scale * scale * cosine + position.bias


def nearest(
    state: State, query: Array, k: int, kinds: Sequence[Evidence] = KINDS, scale: float = 1.0
) -> list[tuple[str, float]]:
    """The ids and scores of the ``k`` best models by brute force, by some kinds of evidence, ties in order of id."""
    scores = {
        id: max(score(position, query, scale) for kind, position in positions_of(given).items() if kind in kinds)
        for id, given in state.items()
        if set(positions_of(given)) & set(kinds)
    }
    return sorted(scores.items(), key=lambda pair: (-round(pair[1], 12), pair[0]))[:k]


def same(hits: list[Hit], expected: list[tuple[str, float]]) -> bool:
    """Whether hits have the expected ids in order, and the expected scores but for rounding."""
    return [hit.model.id for hit in hits] == [id for id, _ in expected] and np.allclose(
        [hit.score for hit in hits], [score for _, score in expected], rtol=0, atol=3e-6
    )


def agree(hits: list[Hit], state: State, query: Array, kinds: Sequence[Evidence] = KINDS) -> bool:
    """Whether hits have the scores, the evidence and the vectors of a state, for some kinds of evidence."""
    for hit in hits:
        positions = {kind: each for kind, each in positions_of(state[hit.model.id]).items() if kind in kinds}
        expected = {kind: score(position, query) for kind, position in positions.items()}
        if (
            list(hit.scores) != list(expected)
            or not np.allclose(list(hit.scores.values()), list(expected.values()), rtol=0, atol=3e-6)
            or (hit.score, hit.scores[hit.found_by]) != (max(hit.scores.values()),) * 2
            or not np.allclose(hit.vector, positions[hit.found_by].vector, rtol=0, atol=1e-7)
        ):
            return False
    return True


def stores(zoo: Zoo, state: State) -> bool:
    """Whether a zoo has the positions of a state, and no other ones."""
    found, ids = zoo.positions_by_id([model.id for model in zoo.models()]), sorted(state)
    evidence = {model.id: model.evidence for model in zoo.models() if model.evidence}
    return sorted(found) == ids == sorted(evidence) and all(
        list(found[id]) == list(positions_of(state[id])) == list(evidence[id])
        and all(
            np.allclose(found[id][kind].vector, expected.vector, rtol=0, atol=1e-7)
            and (found[id][kind].scale, found[id][kind].bias) == (expected.scale, expected.bias)
            for kind, expected in positions_of(state[id]).items()
        )
        for id in ids
    )
