"""What the experts are chosen by: scores of encoders on validation concepts, and once, at the end, on held-out ones."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrieval.evaluate import average_precision, recall_at_k, top_k
from retrieval.probex.dataset import find_labelled, pack
from retrieval.probex.probing import Factors
from retrieval.text import TextEncoder
from scripts.miniature.settings import TEMPLATES, Build, log

ALL_BUT_HELD_OUT = ("train", "val", "val_holdout")


@dataclass(frozen=True, slots=True)
class Study:
    """One fleet in memory: packed factors, concept and split of every LoRA, and a text vector for every concept."""

    models: dict[str, Factors]
    concept: Tensor  # (models,), rows of texts
    split: np.ndarray  # (models,), Model-J's names
    texts: Tensor  # (concepts, dim), CLIP's unit vectors of the labels
    concept_split: np.ndarray  # (concepts,)

    @classmethod
    def load(cls, build: Build, fleet: str) -> "Study":
        """Read every LoRA of a fleet once."""
        concepts = json.loads((build / "concepts.json").read_text())
        labels = [concept["label"] for concept in concepts]
        files = find_labelled(build / f"fleet-{fleet}")
        models = pack([file.path for file in files], progress=lambda done: log.info("packed %d of %d", done, len(files)) if done % 500 == 0 else None)
        return cls(
            models,
            torch.tensor([labels.index(file.class_name) for file in files]),
            np.array([file.split for file in files]),
            TextEncoder.load(f"local-dir:{build / 'clip'}", TEMPLATES).encode(labels).clone(),
            np.array([concept["split"] for concept in concepts]),
        )

    def rows(self, *splits: str) -> Tensor:
        """The models of some splits."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.split, splits)))

    def candidates(self, *splits: str) -> np.ndarray:
        """The concepts of some splits of concepts."""
        return np.flatnonzero(np.isin(self.concept_split, splits))

    def take(self, rows: Tensor, layers: Sequence[str] | None = None) -> dict[str, Factors]:
        """The factors of some models."""
        return {layer: self.models[layer][rows] for layer in (layers or self.models)}


def quick_scores(vectors: Tensor, concepts: Tensor, texts: Tensor, among: np.ndarray) -> dict[str, float]:
    """Per cent: top-1 and top-5 among ``among``, top-1 among all, recall@1 and mAP over these models."""
    scores = (vectors @ texts.T).double().numpy()
    truth = concepts.numpy()
    column = np.searchsorted(among, truth)
    queries = np.unique(truth)
    search = scores[:, queries].T
    report = {
        "top1": top_k(scores[:, among], column, 1),
        "top5": top_k(scores[:, among], column, 5),
        "all_top1": top_k(scores, truth, 1),
        "recall1": recall_at_k(search, queries, truth, 1),
        "map": average_precision(search, queries, truth),
    }
    return {name: round(100 * float(cases.mean()), 1) for name, cases in report.items()}
