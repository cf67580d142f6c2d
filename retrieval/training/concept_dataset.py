"""Labelled LoRAs of one tree in memory, beside the texts of their concepts: what experts are trained and measured on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.measure.metrics import average_precision, top_k
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.objective import Contrast
from loradex.retrieval.probex.probes import ProbeConfig
from loradex.retrieval.training.labelled_loras import LabelledFile

TRAINING, VALIDATION, HELD_OUT, SEEN = (
    "train",
    "val_holdout",
    "test_holdout",
    "test",
)  # splits of models, as Model-J names them
KNOWN = (TRAINING, "val", VALIDATION)  # whose concepts may be used for what ships
PICTURED: Final = 0.9  # of the models must have a picture for pictures to be the targets
VARIANTS: Final = 6  # targets of a concept


class Aim(StrEnum):
    """Where an encoder is told to put a model."""

    CLIP_TEXTS = "clip texts"  # CLIP's vectors of the concept's name, through a learned projection, as published
    LABELS = "labels"  # the same, placed in the space
    DRAWINGS = "drawings"  # where CLIP puts drawings of the concept


class PackedModels:
    """Models in memory: the packed factors of each layer, and the split (models,) of each, by Model-J's names."""

    __slots__ = ()
    models: dict[str, Factors]
    split: np.ndarray

    def rows(self, *splits: str) -> Tensor:
        """The models of some splits."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.split, splits)))

    def take(self, rows: Tensor, layers: Sequence[str] | None = None) -> dict[str, Factors]:
        """The factors of some models."""
        return {layer: self.models[layer][rows] for layer in (layers or self.models)}


@dataclass(frozen=True, slots=True)
class Study(PackedModels):
    """LoRAs of one tree.

    Attributes:
        models: the packed factors of each layer.
        concept: (models,), rows of ``names``.
        split: (models,), Model-J's names.
        names: of the concepts.
        concept_split: (concepts,), "train", "validation" or "heldout".
        texts: (concepts, dim), CLIP's unit vectors of the names.
        labels: (concepts, dim), the texts placed in the space.
        targets: (models, dim), where experts should put the models: drawings placed in the space, or else the labels.
        anchors: (concepts, variants, dim), where they should put models of each concept, in several ways.
    """

    models: dict[str, Factors]
    concept: Tensor
    split: np.ndarray
    names: tuple[str, ...]
    concept_split: np.ndarray
    texts: Tensor
    labels: Tensor
    targets: Tensor
    anchors: Tensor

    def candidates(self, *splits: str) -> np.ndarray:
        """The concepts of some splits of concepts."""
        return np.flatnonzero(np.isin(self.concept_split, splits))

    @property
    def judged(self) -> Tensor:
        """The models by which choices are made: those of validation concepts."""
        return self.rows(VALIDATION)

    def aims(self, rows: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
        """Where a closed form is to put some models (models, dim), and their concepts (models,)."""
        return self.labels[self.concept[rows]] if aim is Aim.LABELS else self.targets[rows], self.concept[rows]

    def objective(self, rows: Tensor, aim: Aim) -> Contrast:
        """What probes are to learn of some models."""
        classes, concepts = self.concept[rows].unique(return_inverse=True)
        return Contrast(
            concepts,
            {Aim.CLIP_TEXTS: self.texts[:, None], Aim.LABELS: self.labels[:, None], Aim.DRAWINGS: self.anchors}[aim][
                classes
            ],
        )

    def net_for(self, model: ProbeConfig, aim: Aim) -> ProbeConfig:
        """The shape of a net that says it."""
        return (
            model
            if aim is Aim.CLIP_TEXTS
            else replace(model, text_projection=False, representation=self.labels.shape[1])
        )

    def merit(self, scores: Tensor, rows: Tensor) -> float:
        """What choices are made by: the mean of ``brief`` for ``scores`` (models, concepts)."""
        return sum(self.brief(scores, rows).values()) / 3

    def brief(self, scores: Tensor, rows: Tensor) -> dict[str, float]:
        """Top-1 among the concepts of these models, top-1 among all, and mAP, for ``scores`` (models, concepts)."""
        table, truth = scores.double().cpu().numpy(), self.concept[rows].numpy()
        among, column = np.unique(truth, return_inverse=True)
        cases = {
            "top1": top_k(table[:, among], column, 1),
            "all_top1": top_k(table, truth, 1),
            "map": average_precision(table[:, among].T, among, truth),
        }
        return {name: float(found.mean()) for name, found in cases.items()}


def study_of(
    files: Sequence[LabelledFile], models: dict[str, Factors], encoder: Encoder, pictures: Mapping[int, Tensor]
) -> Study:
    """A study of labelled files and their packed ``models``.

    Targets are the ``pictures`` of models, by row and placed in the space, where a model has one and nearly all do; else the names of their concepts.
    """
    names = tuple(dict.fromkeys(file.class_name for file in files))
    concept = torch.tensor([names.index(file.class_name) for file in files])
    split = np.array([file.split for file in files])
    texts = encoder.text_encoder.encode(names)
    labels = encoder.space.place(texts)
    targets = labels[concept]
    if len(pictures) >= PICTURED * len(files):
        targets = targets.index_copy(0, torch.tensor(list(pictures)), torch.stack(list(pictures.values())))
    splits = concept_splits(concept, split, len(names))
    return Study(models, concept, split, names, splits, texts, labels, targets, anchors_of(targets, concept, labels))


def anchors_of(targets: Tensor, concept: Tensor, labels: Tensor) -> Tensor:
    """Up to ``VARIANTS`` targets of each concept's models (concepts, variants, dim), drawn with replacement; the label where it has none."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.nonzero(concept == number).flatten() for number in range(len(labels))]
    drawn = [
        targets[own[torch.randint(len(own), (VARIANTS,), generator=generator)]]
        if len(own)
        else labels[i].expand(VARIANTS, -1)
        for i, own in enumerate(rows)
    ]
    return torch.stack(drawn)


def concept_splits(concept: Tensor, split: np.ndarray, concepts: int) -> np.ndarray:
    """The split of each concept by those of its models; a concept without any counts as seen in training."""
    splits = np.full(concepts, "train", dtype="<U10")
    for name, kind in (VALIDATION, "validation"), (HELD_OUT, "heldout"):
        splits[np.unique(concept[split == name])] = kind
    return splits
