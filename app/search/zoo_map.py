"""The map of a zoo: its models in two dimensions, those that draw alike near each other."""

import hashlib
import os
import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from loradex.app.models import model_path
from loradex.app.paths import user_cache_dir
from loradex.app.previews import preview_path
from loradex.index import AnyZoo, Model

MAX_MODELS: Final = 20_000  # on a map; of a larger zoo every second, third, ... model is shown
MAX_TSNE_MODELS: Final = 5_000  # laid out by t-SNE; the others are interpolated
PERPLEXITY: Final = 30.0
NEIGHBOURS: Final = 5  # nearest models from which a position is interpolated
SHARPNESS: Final = 30.0  # factor of their cosines in a softmax: how much the nearest outweighs the others
MAX_NAME: Final = 80  # characters

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ZooMap:
    """Models with their unit vectors (n, dim) and positions (n, 2) from 0 to 1."""

    zoo: Path
    models: list[Model]
    vectors: Floats
    positions: Floats

    def project(self, vectors: Floats) -> Floats:
        """Return positions (m, 2) of new vectors (m, dim), interpolated from the models nearest to them."""
        return interpolate_positions(vectors, self.vectors, self.positions)

    def document(self) -> dict[str, Any]:
        """The map as JSON for the page."""
        concepts = encode_words([concept_of(model) for model in self.models])
        return {
            "models": [model.id for model in self.models],
            "names": [model.name[:MAX_NAME] for model in self.models],
            "x": np.round(self.positions[:, 0], 4).tolist(),
            "y": np.round(self.positions[:, 1], 4).tolist(),
            "drawn": [preview_path(model, self.zoo) is not None for model in self.models],
            "families": encode_words([model.family for model in self.models]),
            "folders": encode_words([folder_of(model, self.zoo) for model in self.models]),
            "concepts": concepts
            | {"hues": concept_hues(self.vectors, np.array(concepts["of"], np.int64), len(concepts["words"]))},
        }


class MapCache:
    """The map of the zoo that was last asked for."""

    def __init__(self) -> None:
        """Start with no map."""
        self._lock = threading.Lock()
        self._map = ZooMap(Path(), [], np.empty((0, 1), np.float32), np.empty((0, 2), np.float32))
        self._key: object = None

    def get(self, zoo: AnyZoo) -> ZooMap:
        """Return the map of a zoo as it is now; computing it takes 1 s for 300 models and about 20 s for 5,000."""
        with self._lock:
            key = (zoo.folder, zoo.state())
            if key != self._key:
                step = -(-max(1, len(zoo)) // MAX_MODELS)
                models = [model for number, model in enumerate(zoo.models()) if number % step == 0]
                vector_by_id = zoo.vectors_by_id([model.id for model in models])
                models = [model for model in models if model.id in vector_by_id]
                vectors = (
                    np.stack([vector_by_id[model.id] for model in models])
                    if models
                    else np.empty((0, zoo.dim), np.float32)
                )
                self._map = ZooMap(zoo.folder, models, vectors, cached_positions(zoo.folder, vectors))
                self._key = key
            return self._map


def cached_positions(zoo: Path, vectors: Floats) -> Floats:
    """Return the positions (n, 2) of a zoo's vectors (n, dim), cached in a file for each zoo."""
    file = user_cache_dir() / "maps" / f"{hex_digest(str(zoo.absolute()).encode())}.npz"
    digest = hex_digest(np.ascontiguousarray(vectors).tobytes())
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as cached:
            positions = cached["places"]
            if (
                str(cached["digest"]) == digest
                and positions.shape == (len(vectors), 2)
                and positions.dtype == np.float32
                and np.isfinite(positions).all()
            ):
                return positions
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error):
        pass  # the positions are computed again
    positions = map_positions(vectors)
    part_file = file.with_name(f".{file.stem}.{os.getpid()}.npz")
    with suppress(OSError):  # without a cache, the map is computed again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(part_file, places=positions, digest=np.array(digest))
        part_file.replace(file)
    return positions


def hex_digest(content: bytes) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()[:32]


def map_positions(vectors: Floats) -> Floats:
    """Return positions (n, 2) from 0 to 1 of unit vectors (n, dim).

    Of more than ``MAX_TSNE_MODELS`` vectors, every second, third, ... is laid out by t-SNE, and the others are
    interpolated.
    """
    step = -(-max(1, len(vectors)) // MAX_TSNE_MODELS)
    sample = vectors[::step]
    positions = np.empty((len(vectors), 2), np.float32)
    positions[::step] = tsne_positions(sample)
    for start in range(1, step):
        positions[start::step] = interpolate_positions(vectors[start::step], sample, positions[::step])
    return positions


def tsne_positions(vectors: Floats) -> Floats:
    """Return positions (n, 2) from 0 to 1 by t-SNE (van der Maaten and Hinton, JMLR 2008), started from a PCA."""
    if len(vectors) < 4:
        return np.stack([np.linspace(0, 1, len(vectors) + 2)[1:-1], np.full(len(vectors), 0.5)], axis=1).astype(
            np.float32
        )
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    embedded = TSNE(perplexity=perplexity, init="pca", metric="cosine", random_state=0, n_jobs=-1).fit_transform(
        vectors
    )
    low, high = embedded.min(0), embedded.max(0)
    positions: Floats = ((embedded - low) / np.maximum(high - low, 1e-9)).astype(np.float32)
    return positions


def interpolate_positions(vectors: Floats, known: Floats, positions: Floats) -> Floats:
    """Return positions (m, 2) of vectors (m, dim): the weighted mean position of the known vectors nearest to each.

    Without known vectors, that is the middle of the map.
    """
    if not len(known):
        return np.full((len(vectors), 2), 0.5, np.float32)
    neighbours = min(NEIGHBOURS, len(known))
    result = np.empty((len(vectors), 2), np.float32)
    for start in range(0, len(vectors), 1000):
        cosines = vectors[start : start + 1000] @ known.T
        nearest = np.argpartition(-cosines, neighbours - 1, axis=1)[:, :neighbours]
        nearest_cosines = np.take_along_axis(cosines, nearest, 1)
        weights = np.exp(SHARPNESS * (nearest_cosines - nearest_cosines.max(1, keepdims=True)))
        result[start : start + 1000] = (weights[..., None] * positions[nearest]).sum(1) / weights.sum(1, keepdims=True)
    return result


def concept_hues(vectors: Floats, words: NDArray[np.int64], count: int) -> list[int]:
    """Return a hue from 0 to 359 for each of ``count`` words: similar hues for words with similar models.

    The hue is the angle of the mean vector of a word's models in the plane of the first two principal components.

    Args:
        vectors: the unit vectors (n, dim) of models.
        words: the number (n,) of each model's word, -1 for none.
        count: the number of words.
    """
    if not count:
        return []
    sums = np.zeros((count, vectors.shape[1]), np.float64)
    np.add.at(sums, words[words >= 0], vectors[words >= 0])
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    centred = means - means.mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    x, y = (np.pad(centred @ directions.T, ((0, 0), (0, 2 - len(directions))))).T
    return [int(hue) for hue in np.degrees(np.arctan2(y, x)) % 360]


def concept_of(model: Model) -> str:
    """The concept that a model was trained on, else its most probable label, else an empty text."""
    labels = model.facts.get("labels")
    first = labels[0] if isinstance(labels, list) and labels else None
    label = str(first[0]) if isinstance(first, list) and first else ""
    return (model.concept or label)[:MAX_NAME]


def folder_of(model: Model, zoo: Path) -> str:
    """The last two names of the folder that holds a model's file."""
    path = model_path(model, str(zoo))
    return "/".join(path.replace("\\", "/").split("/")[-3:-1])[-MAX_NAME:] if path else ""


def encode_words(words: Sequence[str]) -> dict[str, list[Any]]:
    """Encode words as numbers: ``words`` has each word once, the most frequent first, ``of`` the number of each word.

    Empty words have the number -1.
    """
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    distinct = sorted((word for word in counts if word), key=lambda word: (-counts[word], word))
    numbers = {word: number for number, word in enumerate(distinct)}
    return {"words": distinct, "of": [numbers.get(word, -1) for word in words]}
