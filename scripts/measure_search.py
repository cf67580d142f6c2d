"""``python -m scripts.measure_search [--json]``: how well held-out LoRAs of the miniature are found by each evidence.

All LoRAs of held-out concepts that ship are put into one folder, each beside four pictures that it draws itself (the
quarters of its preview in the zoo), and indexed as ``loradex index`` does. Then each concept's name is searched, among
the LoRAs of one tree and of both: by what an expert reads from the weights, by the pictures, and by both; ranked by
log-odds as Loradex ranks, and by cosines. Then the probabilities of hits in the zoo that ships are compared with how
often the hits are right.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loradex.app.indexing.ingest import index_places
from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.app.search.service import Loradex
from loradex.index import AnyZoo, Evidence, Filter, Zoo, open_zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.measure.gallery import HELD_OUT
from loradex.retrieval.measure.metrics import Metric, calibration_error, text_to_model_metrics

TREES: Final = ("mini-a", "mini-b")
KINDS: Final = {
    "weights": (Evidence.PICTURE,),
    "pictures beside the file": (Evidence.PREVIEW,),
    "both": (Evidence.PICTURE, Evidence.PREVIEW),
}
METRICS: Final = {"text_to_model_recall_at_1": "recall@1", "text_to_model_map": "mAP"}
HITS: Final = 5  # of each query whose probabilities are measured


def main() -> None:
    """Measure, and print a table or JSON."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put_files(folder / "loras")
        encoder = Encoder.load(MINIATURE / "encoder")
        index_places([folder / "loras"], folder / "zoo", encoder)
        with open_zoo(folder / "zoo", read_only=True) as zoo:
            rankings = measure_rankings(zoo, encoder)
    document = {"rankings": rankings, "probabilities": measure_probabilities()}
    if "--json" in sys.argv[1:]:
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return
    for row in rankings:
        values = "  ".join(
            f"{title} {100 * row[name]['value']:.1f} [{100 * row[name]['low']:.1f}, {100 * row[name]['high']:.1f}]"
            for name, title in METRICS.items()
        )
        sys.stdout.write(f"{row['trees']:<15} {row['evidence']:<25} {row['ranked_by']:<9} {values}  n {row['n']}\n")
    sys.stdout.write(json.dumps(document["probabilities"]) + "\n")


def put_files(folder: Path) -> None:
    """Copy the LoRAs of held-out concepts, each with the quarters of its preview as pictures."""
    folder.mkdir()
    for tree in TREES:
        for path in sorted((MINIATURE / "models" / tree / HELD_OUT).glob("*/*.safetensors")):
            name = f"{tree}-{path.parent.name}"
            shutil.copyfile(path, folder / f"{name}.safetensors")
            preview = SHIPPED_ZOO / "previews" / f"{LoraFile.open(path).id}.png"
            for number, picture in enumerate(quarters(preview), 1):
                picture.save(folder / f"{name}.{number}.png")


def quarters(path: Path) -> Iterator[Image.Image]:
    """Yield the four drawings of a preview."""
    with Image.open(path) as image:
        whole = image.convert("RGB")
    width, height = whole.width // 2, whole.height // 2
    for top in (0, height):
        for left in (0, width):
            yield whole.crop((left, top, left + width, top + height))


def measure_rankings(zoo: AnyZoo, encoder: Encoder) -> list[dict[str, Any]]:
    """Search each concept's name in each set of trees, by each evidence and each ranking."""
    rows = []
    for families in (*((tree,) for tree in TREES), TREES):
        models = list(zoo.models(Filter(families=families)))
        concepts = np.array([model.concept or "" for model in models])
        names = [str(name) for name in np.unique(concepts)]
        if len(families) > 1:  # as ``loradex evaluate`` does: concepts of which both trees have a LoRA
            by_tree = [{model.concept for model in models if model.family == tree} for tree in families]
            names = [name for name in names if all(name in of_tree for of_tree in by_tree)]
        numbers = {name: number for number, name in enumerate(dict.fromkeys([*names, *concepts.tolist()]))}
        truth = np.array([numbers[concept] for concept in concepts.tolist()])
        texts = encoder.encode_texts(names).numpy()
        for title, kinds in KINDS.items():
            where = Filter(families=families, found_by=kinds)
            for ranked_by, scores in (
                ("log-odds", searched(zoo, encoder, texts, [model.id for model in models], where)),
                ("cosine", cosines(zoo, texts, [model.id for model in models], kinds)),
            ):
                metrics = text_to_model_metrics(scores, np.arange(len(names)), truth)
                rows.append(
                    {"trees": " + ".join(families), "evidence": title, "ranked_by": ranked_by, "n": len(names)}
                    | documents(metrics)
                )
    return rows


def documents(metrics: Mapping[str, Metric]) -> dict[str, dict[str, float]]:
    """Metrics as JSON."""
    return {name: asdict(metric) for name, metric in metrics.items()}


def searched(
    zoo: AnyZoo, encoder: Encoder, texts: NDArray[np.float32], ids: list[str], where: Filter
) -> NDArray[np.float64]:
    """The scores (texts, models) by which Loradex ranks models."""
    rows = {id: row for row, id in enumerate(ids)}
    scores = np.full((len(texts), len(ids)), -np.inf)
    scales = [encoder.query_spread.scale(text) if encoder.query_spread else 1.0 for text in texts]
    for query, hits in enumerate(zoo.search_many(texts, len(ids), where, scales=scales)):
        for hit in hits:
            scores[query, rows[hit.model.id]] = hit.score
    return scores


def cosines(
    zoo: AnyZoo, texts: NDArray[np.float32], ids: list[str], kinds: tuple[Evidence, ...]
) -> NDArray[np.float64]:
    """The best cosine (texts, models) of the positions of each model."""
    positions = zoo.positions_by_id(ids)
    columns = [
        np.max([texts @ positions[id][kind].vector for kind in kinds if kind in positions[id]], axis=0) for id in ids
    ]
    return np.array(columns, np.float64).T


def measure_probabilities() -> dict[str, float]:
    """Compare the probabilities of the first hits of each concept's name in the shipped zoo with what is right."""
    probabilities, right = [], []
    with Zoo.open(SHIPPED_ZOO, read_only=True) as zoo:
        concepts = sorted({model.concept for model in zoo.models() if model.concept})
    loradex = Loradex()
    for concept in concepts:
        for hit in loradex.search(concept, HITS).hits:
            probabilities.append(hit.probability or 0.0)
            right.append(float(hit.model.concept == concept))
    predicted, actual = np.array(probabilities), np.array(right)
    likely = predicted > 0.5
    return {
        "queries": len(concepts),
        "hits": len(predicted),
        "calibration_error": calibration_error(predicted, actual),
        "mean_probability": float(predicted.mean()),
        "right": float(actual.mean()),
        "likelier_than_half": int(likely.sum()),
        "right_among_those": float(actual[likely].mean()),
    }


if __name__ == "__main__":
    main()
