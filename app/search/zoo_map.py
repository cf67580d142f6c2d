"""A zoo in two dimensions: models that draw alike lie near each other."""

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

from loradex.app.models import path_of
from loradex.app.paths import own_cache
from loradex.app.previews import drawing_of
from loradex.index import AnyZoo, Model

MOST: Final = 20_000  # models on a map; of a larger zoo every second, third ... is shown
LAID_OUT: Final = 5_000  # models whose places are computed together; the others are put among them
PERPLEXITY: Final = 30.0
NEAR: Final = 5  # models that a new one is placed by
SHARPNESS: Final = 30.0  # of their weights: how much the nearest counts before the others
LONGEST: Final = 80  # characters of a name

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ZooMap:
    """Models with their unit vectors (n, dim) and places (n, 2) from 0 to 1."""

    zoo: Path
    models: list[Model]
    vectors: Floats
    places: Floats

    def place(self, vectors: Floats) -> Floats:
        """Where new vectors (m, dim) lie (m, 2): among the models nearest to them."""
        return placed(vectors, self.vectors, self.places)

    def document(self) -> dict[str, Any]:
        """The map as the page draws it: equal words are told once, with their number for each model, -1 for none."""
        concepts = table_of([concept_of(model) for model in self.models])
        return {
            "models": [model.id for model in self.models],
            "names": [model.name[:LONGEST] for model in self.models],
            "x": np.round(self.places[:, 0], 4).tolist(),
            "y": np.round(self.places[:, 1], 4).tolist(),
            "drawn": [drawing_of(model, self.zoo) is not None for model in self.models],
            "families": table_of([model.family for model in self.models]),
            "folders": table_of([folder_of(model, self.zoo) for model in self.models]),
            "concepts": concepts
            | {"hues": hues_of(self.vectors, np.array(concepts["of"], np.int64), len(concepts["words"]))},
        }


class Maps:
    """The map of the zoo that was asked for last."""

    def __init__(self) -> None:
        """None yet."""
        self._making, self._made, self._key = (
            threading.Lock(),
            ZooMap(Path(), [], np.empty((0, 1), np.float32), np.empty((0, 2), np.float32)),
            object(),
        )

    def of(self, zoo: AnyZoo) -> ZooMap:
        """The map of a zoo as it is now; it is computed once for each state, which takes a second for 300 models and about 20 for 5,000."""
        with self._making:
            key = (zoo.folder, zoo.state())
            if key != self._key:
                step = -(-max(1, len(zoo)) // MOST)
                models = [model for number, model in enumerate(zoo.models()) if number % step == 0]
                known = zoo.vectors_of([model.id for model in models])
                models = [model for model in models if model.id in known]
                vectors = (
                    np.stack([known[model.id] for model in models]) if models else np.empty((0, zoo.dim), np.float32)
                )
                self._made, self._key = ZooMap(zoo.folder, models, vectors, kept_places(zoo.folder, vectors)), key
            return self._made


def kept_places(zoo: Path, vectors: Floats) -> Floats:
    """The places of a zoo's vectors; the last ones lie in the cache, one file for each zoo."""
    file = own_cache() / "maps" / f"{digest_of(str(zoo.absolute()).encode())}.npz"
    digest = digest_of(np.ascontiguousarray(vectors).tobytes())
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
            places = kept["places"]
            if (
                str(kept["digest"]) == digest
                and places.shape == (len(vectors), 2)
                and places.dtype == np.float32
                and np.isfinite(places).all()
            ):
                return places
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error):
        pass  # it is computed again
    places = places_of(vectors)
    part = file.with_name(f".{file.stem}.{os.getpid()}.npz")
    with suppress(OSError):  # a map that is not kept costs time, and nothing else
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(part, places=places, digest=np.array(digest))
        part.replace(file)
    return places


def digest_of(content: bytes) -> str:
    """A short name of some bytes."""
    return hashlib.sha256(content).hexdigest()[:32]


def places_of(vectors: Floats) -> Floats:
    """Places (n, 2) from 0 to 1 of unit vectors (n, dim), by t-SNE (van der Maaten and Hinton, JMLR 2008) from their principal components.

    Beyond ``LAID_OUT`` vectors an even share is laid out, and the others are placed by those.
    """
    step = -(-max(1, len(vectors)) // LAID_OUT)
    some = vectors[::step]
    places = np.empty((len(vectors), 2), np.float32)
    places[::step] = laid_out(some)
    for others in range(1, step):
        places[others::step] = placed(vectors[others::step], some, places[::step])
    return places


def laid_out(vectors: Floats) -> Floats:
    """Places (n, 2) from 0 to 1, computed together."""
    if len(vectors) < 4:
        return np.stack([np.linspace(0, 1, len(vectors) + 2)[1:-1], np.full(len(vectors), 0.5)], axis=1).astype(
            np.float32
        )
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    found = TSNE(perplexity=perplexity, init="pca", metric="cosine", random_state=0, n_jobs=-1).fit_transform(vectors)
    low, high = found.min(0), found.max(0)
    places: Floats = ((found - low) / np.maximum(high - low, 1e-9)).astype(np.float32)
    return places


def placed(vectors: Floats, known: Floats, places: Floats) -> Floats:
    """The weighted mean place of the known vectors nearest to each vector; the middle where none is known."""
    if not len(known):
        return np.full((len(vectors), 2), 0.5, np.float32)
    near = min(NEAR, len(known))
    found = np.empty((len(vectors), 2), np.float32)
    for start in range(0, len(vectors), 1000):
        cosines = vectors[start : start + 1000] @ known.T
        best = np.argpartition(-cosines, near - 1, axis=1)[:, :near]
        nearest = np.take_along_axis(cosines, best, 1)
        weights = np.exp(SHARPNESS * (nearest - nearest.max(1, keepdims=True)))
        found[start : start + 1000] = (weights[..., None] * places[best]).sum(1) / weights.sum(1, keepdims=True)
    return found


def hues_of(vectors: Floats, words: NDArray[np.int64], count: int) -> list[int]:
    """A hue from 0 to 359 for each word, like hues for words whose models lie near each other: the angle of their mean in the two main directions."""
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
    """What a model was made for, else its likeliest label, else nothing."""
    labels = model.facts.get("labels")
    likeliest = (
        labels[0][0] if isinstance(labels, list) and labels and isinstance(labels[0], list) and labels[0] else ""
    )
    return (model.concept or str(likeliest))[:LONGEST]


def folder_of(model: Model, zoo: Path) -> str:
    """The last two names of the folder that holds a model's file."""
    path = path_of(model, str(zoo))
    return "/".join(path.replace("\\", "/").split("/")[-3:-1])[-LONGEST:] if path else ""


def table_of(words: Sequence[str]) -> dict[str, list[Any]]:
    """Each word once, the most frequent first, and its number for each place; -1 for an empty one."""
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    once = sorted((word for word in counts if word), key=lambda word: (-counts[word], word))
    numbers = {word: number for number, word in enumerate(once)}
    return {"words": once, "of": [numbers.get(word, -1) for word in words]}
