"""What the experts are chosen by: scores of encoders on validation concepts, and once, at the end, on held-out ones."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from retrieval.evaluate import average_precision, recall_at_k, top_k
from retrieval.lora import LoraFile
from retrieval.probex.dataset import find_labelled, pack
from retrieval.probex.probing import Factors
from retrieval.text import TextEncoder
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import TEMPLATES, Build, atomic, log

ALL_BUT_HELD_OUT = ("train", "val", "val_holdout")


@dataclass(frozen=True, slots=True)
class Study:
    """One fleet in memory: packed factors, concept, split and drawings of every LoRA, and a text vector for every concept.

    The centres are those of the training concepts. Experts are fitted to reach where a LoRA's own drawings lie.
    """

    models: dict[str, Factors]
    concept: Tensor  # (models,), rows of texts
    split: np.ndarray  # (models,), Model-J's names
    texts: Tensor  # (concepts, dim), CLIP's unit vectors of the labels
    concept_split: np.ndarray  # (concepts,)
    centre: Tensor  # (dim,), of the texts
    picture_centre: Tensor  # (dim,), of the drawings
    labels: Tensor  # (concepts, dim), the texts placed in the space
    targets: Tensor  # (models, dim), the drawings of each LoRA placed in the space

    @classmethod
    def load(cls, build: Build, fleet: str) -> "Study":
        """Read every LoRA of a fleet once."""
        concepts = json.loads((build / "concepts.json").read_text())
        names = [concept["label"] for concept in concepts]
        splits = np.array([concept["split"] for concept in concepts])
        files = find_labelled(build / f"fleet-{fleet}")
        models = pack([file.path for file in files], progress=lambda done: log.info("packed %d of %d", done, len(files)) if done % 500 == 0 else None)
        texts = TextEncoder.load(f"local-dir:{build / 'clip'}", TEMPLATES).encode(names).clone()
        drawings, (_, concept_of, trained_on, _) = drawing_vectors(build), load_pictures(build)
        own = torch.stack([drawings[json.loads(LoraFile.open(file.path).header.metadata["recipe"])["drawings"]].mean(0) for file in files])
        centre, picture_centre = texts[splits == "train"].mean(0), drawings[(splits[concept_of] == "train") & trained_on].mean(0)
        return cls(
            models,
            torch.tensor([names.index(file.class_name) for file in files]),
            np.array([file.split for file in files]),
            texts,
            splits,
            centre,
            picture_centre,
            F.normalize(texts - centre, dim=-1),
            F.normalize(own - picture_centre, dim=-1),
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


def drawing_vectors(build: Build) -> Tensor:
    """CLIP's unit vectors (drawings, dim) of all drawings, made once."""
    path = build / "drawings.pt"
    if not path.exists():
        encoder, pixels = TextEncoder.load(f"local-dir:{build / 'clip'}", TEMPLATES), load_pictures(build)[0]
        batches = (pixels[start : start + 128] for start in range(0, len(pixels), 128))
        with atomic(path) as temporary:
            torch.save(torch.cat([encoder.encode_pictures([Image.fromarray(picture) for picture in batch]) for batch in batches]), temporary)
    return torch.load(path, weights_only=True)


def quick_scores(scores: Tensor, concepts: Tensor, among: np.ndarray) -> dict[str, float]:
    """Per cent, for scores (models, concepts): top-1 and top-5 among ``among``, top-1 among all, recall@1 and mAP over these models."""
    table = scores.double().numpy()
    truth = concepts.numpy()
    column = np.searchsorted(among, truth)
    queries = np.unique(truth)
    search = table[:, queries].T
    report = {
        "top1": top_k(table[:, among], column, 1),
        "top5": top_k(table[:, among], column, 5),
        "all_top1": top_k(table, truth, 1),
        "recall1": recall_at_k(search, queries, truth, 1),
        "map": average_precision(search, queries, truth),
    }
    return {name: round(100 * float(cases.mean()), 1) for name, cases in report.items()}
