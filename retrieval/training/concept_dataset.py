"""Datasets of LoRAs with the texts and drawings of their concepts, on which experts are trained and measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.measure.metrics import average_precision, top_k_hits
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.objective import ContrastiveObjective
from loradex.retrieval.probex.probes import ProbeConfig
from loradex.retrieval.training.dataset import Aim, Dataset
from loradex.retrieval.training.labelled_loras import KEPT_APART, LabelledLora

# splits of models, as Model-J names them
TRAINING, VALIDATION, HELD_OUT, SEEN = "train", *KEPT_APART, "test"
FINAL_SPLITS = (TRAINING, "val", VALIDATION)  # on which the final expert is fitted
MIN_PICTURE_SHARE: Final = 0.9  # of the models must have a picture for pictures to be the targets
WORD_SHARE: Final = 0.2  # in the targets of grown models; chosen on validation concepts (docs/experiments.md)
VARIANTS: Final = 6  # anchors of each concept


@dataclass(frozen=True, slots=True)
class ConceptDataset(Dataset):
    """LoRAs of one model tree.

    Attributes:
        models: the packed factors of each layer.
        concept: (models,), rows of ``names``.
        split: (models,), by Model-J's names.
        names: of the concepts.
        concept_split: (concepts,), "train", "validation" or "heldout".
        texts: (concepts, dim), CLIP's unit vectors of the names.
        labels: (concepts, dim), the vectors of the names in the space.
        targets: (models, dim), vectors in the space that experts are to predict: drawings, or else the labels.
        anchors: (concepts, variants, dim), several targets of each concept.
        grown: (models,), whether a model was grown from the base model; None if all are real.
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
    grown: Tensor | None = None

    def concepts_of(self, *splits: str) -> np.ndarray:
        """The concepts in some splits of concepts."""
        return np.flatnonzero(np.isin(self.concept_split, splits))

    @property
    def validation_rows(self) -> Tensor:
        """The rows of the models of validation concepts."""
        return self.rows(VALIDATION)

    def regression_targets(self, rows: Tensor, aim: Aim) -> tuple[Tensor, Tensor]:
        """The targets (rows, dim) of a closed form for some models, and their concepts (rows,)."""
        return self.labels[self.concept[rows]] if aim is Aim.LABELS else self.targets[rows], self.concept[rows]

    def kinds(self, rows: Tensor) -> Tensor:
        """Of some models (rows,): 0 for real ones, 1 for those that were grown beside real ones."""
        return torch.zeros(len(rows), dtype=torch.int64) if self.grown is None else self.grown[rows].long()

    def objective(self, rows: Tensor, aim: Aim) -> ContrastiveObjective:
        """The training objective of probes for some models, among the concepts of these models."""
        names, concepts = self.concept[rows].unique(return_inverse=True)
        anchors = {Aim.CLIP_TEXTS: self.texts[:, None], Aim.LABELS: self.labels[:, None], Aim.DRAWINGS: self.anchors}
        return ContrastiveObjective(concepts, anchors[aim][names])

    def adapt_config(self, config: ProbeConfig, aim: Aim) -> ProbeConfig:
        """Return the config of a net that maps to the space, unless CLIP's texts are projected by the net itself."""
        if aim is Aim.CLIP_TEXTS:
            return config
        return replace(config, text_projection=False, representation=self.labels.shape[1])

    def validation_score(self, scores: Tensor, rows: Tensor) -> float:
        """The mean of ``brief_metrics`` for ``scores`` (rows, concepts)."""
        return sum(self.brief_metrics(scores, rows).values()) / 3

    def brief_metrics(self, scores: Tensor, rows: Tensor) -> dict[str, float]:
        """Three metrics of ``scores`` (rows, concepts).

        Top-1 among the concepts of these models, top-1 among all concepts, and mean average precision.
        """
        table, truth = scores.double().cpu().numpy(), self.concept[rows].numpy()
        concepts, column = np.unique(truth, return_inverse=True)
        cases = {
            "top1": top_k_hits(table[:, concepts], column, 1),
            "all_top1": top_k_hits(table, truth, 1),
            "map": average_precision(table[:, concepts].T, concepts, truth),
        }
        return {name: float(values.mean()) for name, values in cases.items()}


def make_concept_dataset(
    files: Sequence[LabelledLora], models: dict[str, Factors], encoder: Encoder, pictures: Mapping[int, Tensor]
) -> ConceptDataset:
    """Make a dataset of labelled files.

    Args:
        files: the labelled files.
        models: their packed factors, by layer.
        encoder: of the space.
        pictures: vectors (dim,) in the space of the pictures of models, by row. They are the targets where nearly all
            models have one, among real ones and among grown ones, whose pictures are moved towards the words;
            otherwise, and for models without one, the targets are the names of the concepts.
    """
    names = tuple(dict.fromkeys(file.class_name for file in files))
    concept = torch.tensor([names.index(file.class_name) for file in files])
    split = np.array([file.split for file in files])
    texts = encoder.text_encoder.encode(names)
    labels = encoder.space.centre_texts(texts)
    grown = torch.tensor([file.grown for file in files])
    targets = labels[concept]
    for of_kind in (grown, ~grown):
        rows = [row for row in pictures if of_kind[row]]
        if rows and len(rows) >= MIN_PICTURE_SHARE * int(of_kind.sum()):
            shown = torch.stack([pictures[row] for row in rows])
            if of_kind is grown:
                shown = towards_words(shown, labels[concept[rows]])
            targets = targets.index_copy(0, torch.tensor(rows), shown)
    concept_split = split_concepts(concept, split, len(names))
    anchors = sample_anchors(targets, concept, labels)
    grown_beside_real = grown if grown.any() and not grown.all() else None
    return ConceptDataset(
        models, concept, split, names, concept_split, texts, labels, targets, anchors, grown_beside_real
    )


def towards_words(pictures: Tensor, words: Tensor, share: float = WORD_SHARE) -> Tensor:
    """Unit vectors (n, dim) between those of pictures that a base model drew and those of the words that it drew.

    Base models do not draw all words well, and what they draw of all words has their style.
    """
    return F.normalize((1 - share) * pictures + share * words, dim=-1)


def sample_anchors(targets: Tensor, concept: Tensor, labels: Tensor) -> Tensor:
    """Draw ``VARIANTS`` targets of each concept's models with replacement (concepts, variants, dim).

    The label stands for a concept without models.
    """
    generator = torch.Generator().manual_seed(0)
    anchors = []
    for number in range(len(labels)):
        rows = torch.nonzero(concept == number).flatten()
        if len(rows):
            anchors.append(targets[rows[torch.randint(len(rows), (VARIANTS,), generator=generator)]])
        else:
            anchors.append(labels[number].expand(VARIANTS, -1))
    return torch.stack(anchors)


def split_concepts(concept: Tensor, split: np.ndarray, concepts: int) -> np.ndarray:
    """The split (concepts,) of each concept by those of its models; one without models counts as seen in training."""
    splits = np.full(concepts, "train", dtype="<U10")
    for model_split, concept_split in (VALIDATION, "validation"), (HELD_OUT, "heldout"):
        splits[np.unique(concept[split == model_split])] = concept_split
    return splits
