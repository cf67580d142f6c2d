"""``loradex evaluate``: the figures of the experts that ship, from the files that ship."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from app.places import MINIATURE
from retrieval.baselines import Baselines
from retrieval.encoder import Encoder
from retrieval.evaluate import Metric
from retrieval.gallery import Gallery, synonym_metric
from retrieval.probex.dataset import find_labelled, pack


def evaluate_miniature(tree: str = "mini-a", miniature: Path = MINIATURE) -> dict[str, Any]:
    """The document of the design: metrics and baselines over the shipped LoRAs of one model tree."""
    encoder = Encoder.load(miniature / "encoder")
    concepts = read_json(miniature / "concepts.json")
    labels = [concept["label"] for concept in concepts]
    texts = encoder.encode_texts(labels)
    files = find_labelled(miniature / "models" / tree)
    models = pack([file.path for file in files])
    gallery = Gallery(
        concept_split=np.array([concept["split"] for concept in concepts]),
        concept=np.array([labels.index(file.class_name) for file in files]),
        split=np.array([file.split for file in files]),
    )
    metrics = gallery.metrics(encoder.space.background.standardise(encoder.experts[tree].encode_factors(models), texts))
    for kind in "synonym", "keyword":
        words = read_json(miniature / f"{kind}s.json")
        truth = np.array([labels.index(word["label"]) for word in words])
        metrics[f"{kind}_top10"] = synonym_metric(encoder.encode_texts([word["word"] for word in words]), texts, truth)
    baselines = Baselines.load(miniature / "baselines" / f"{tree}.safetensors").scores(models, texts)
    return {
        "zoo": f"miniature/{tree}",
        "split": gallery.describe(),
        "metrics": as_fractions(metrics),
        "baselines": {name: as_fractions(gallery.metrics(scores)) for name, scores in baselines.items()},
    }


def read_json(path: Path) -> Any:
    """A JSON file of the miniature."""
    return json.loads(path.read_text("utf-8"))


def as_fractions(metrics: dict[str, Metric]) -> dict[str, dict[str, float]]:
    """Metrics as the design's JSON has them."""
    return {name: asdict(metric) for name, metric in metrics.items()}
