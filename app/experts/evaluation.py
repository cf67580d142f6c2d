"""``loradex evaluate``: what an expert says of held-out concepts, beside baselines where some ship."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from loradex.app.experts.category_evaluation import evaluate_classifiers, evaluate_shipped_classifiers
from loradex.app.paths import MINIATURE, encoder_folders, read_json
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.measure.baselines import Baselines
from loradex.retrieval.measure.gallery import HELD_OUT, Gallery, synonym_metric
from loradex.retrieval.measure.metrics import Metric, summarise, text_to_model, top_k
from loradex.retrieval.measure.neighbours import nearest_label, one_class
from loradex.retrieval.measure.variants import VARIANTS
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.training.category_dataset import find_classifiers
from loradex.retrieval.training.concept_dataset import concept_splits
from loradex.retrieval.training.labelled_loras import LabelledFile, find_labelled, pack

TREES: Final = ("mini-a", "mini-b")


class Measured:
    """Labelled LoRAs of one tree in memory, read by its expert, beside the words of all concepts."""

    def __init__(
        self,
        files: Sequence[LabelledFile],
        expert: Expert,
        encoder: Encoder,
        labels: Sequence[str],
        concept_split: np.ndarray,
    ) -> None:
        """Read the files; ``concept_split`` is that of the ``labels``."""
        numbers = {label: number for number, label in enumerate(labels)}
        self.expert, self.names = expert, [file.path.parent.name for file in files]
        self.models = pack([file.path for file in files], expert.layers)
        self.gallery = Gallery(
            concept_split,
            np.array([numbers[file.class_name] for file in files]),
            np.array([file.split for file in files]),
        )
        self.vectors: Tensor = expert.encode_factors(self.models)
        self.held_out = np.flatnonzero(self.gallery.split == HELD_OUT)
        self.labels, self.texts = labels, encoder.encode_texts(labels)

    def metrics(self) -> dict[str, Metric]:
        """Everything that is told from these models alone."""
        calibration = self.expert.calibration
        scores = calibration.scores(self.vectors, self.texts)
        return (
            self.gallery.metrics(scores)
            | self.gallery.calibrated(calibration, scores)
            | self.gallery.neighbours(self.vectors)
        )

    def document(self, zoo: str, metrics: dict[str, Metric]) -> dict[str, Any]:
        """The JSON of the design."""
        changed = {name: as_fractions(found) for name, found in self.robustness().items()}
        return {
            "zoo": zoo,
            "split": self.gallery.describe(),
            "metrics": as_fractions(metrics),
            "baselines": {},
            "changed_files": changed,
            "same_prompt": same_texts(self.labels),
        }

    def robustness(self) -> dict[str, dict[str, Metric]]:
        """Top-1 of held-out models among all concepts after changes of their files, and how near the vectors stay."""
        rows, calibration = torch.from_numpy(self.held_out), self.expert.calibration
        models, truth = (
            {layer: factors[rows] for layer, factors in self.models.items()},
            self.gallery.concept[self.held_out],
        )
        found = {}
        for name, change in VARIANTS.items():
            changed = change(models)
            if self.expert.enough(changed):
                vectors = self.expert.encode_factors(changed)
                right = top_k(calibration.scores(vectors, self.texts).double().numpy(), truth, 1)
                cosines = (vectors * self.vectors[rows]).sum(1).double().numpy()
                found[name] = {
                    "zero_shot_top1_all": summarise(right, truth, 1 / len(self.texts)),
                    "cosine_with_the_original": summarise(cosines, truth, 0.0),
                }
        return found


def evaluate_zoo(zoo: Path, labels: Path | None = None) -> dict[str, Any]:
    """The metrics of the expert at hand on a folder of labelled models, in Model-J's layout or split by the names of concepts as ``loradex train`` does.

    Raises:
        LoradexError: there are no labelled LoRAs of held-out concepts, and no classifiers, that an expert reads.
    """
    encoder = Encoder.load(*encoder_folders())
    if not labels and (classifiers := find_classifiers(zoo)):
        return evaluate_classifiers(zoo, classifiers, encoder)
    able: dict[str, list[LabelledFile]] = defaultdict(list)
    for file in find_labelled(zoo, labels):
        lora = LoraFile.open(file.path)
        for tree, expert in encoder.experts.items():
            if len(expert.readable(lora)) == len(expert.layers):
                able[tree].append(file)
    tree, files = max(able.items(), key=lambda item: len(item[1]), default=("none", []))
    names = list(dict.fromkeys(file.class_name for file in files))
    concept, split = (
        torch.tensor([names.index(file.class_name) for file in files]),
        np.array([file.split for file in files]),
    )
    if HELD_OUT not in split:
        raise FileUnsupported(
            f"{zoo}: expected LoRAs of held-out concepts ({HELD_OUT}) that an expert reads, found {dict(Counter(split.tolist()))} for {tree}"
        )
    measured = Measured(files, encoder.experts[tree], encoder, names, concept_splits(concept, split, len(names)))
    return measured.document(str(zoo), measured.metrics())


def evaluate_miniature(tree: str = "mini-a", folder: Path = MINIATURE) -> dict[str, Any]:
    """Metrics and baselines over the shipped models of one tree, and what was measured on all of them while the miniature was built."""
    if tree not in TREES:
        return evaluate_shipped_classifiers(tree, folder)
    encoder, concepts = Encoder.load(folder / "encoder"), read_json(folder / "concepts.json")
    labels, splits = [concept["label"] for concept in concepts], np.array([concept["split"] for concept in concepts])
    own, other = (
        Measured(find_labelled(folder / "models" / name), encoder.experts[name], encoder, labels, splits)
        for name in (tree, *(name for name in TREES if name != tree))
    )
    metrics = own.metrics() | across_trees(own, other)
    for kind in "synonym", "keyword":
        words = read_json(folder / f"{kind}s.json")
        truth = np.array([labels.index(word["label"]) for word in words])
        metrics[f"{kind}_top10"] = synonym_metric(
            encoder.encode_texts([word["word"] for word in words]), own.texts, truth
        )
    baselines = Baselines.load(folder / "baselines" / f"{tree}.safetensors").scores(own.models, own.texts)
    baselines["file_names"] = encoder.encode_texts(own.names) @ own.texts.mT
    return own.document(f"miniature/{tree}", metrics) | {
        "baselines": {name: as_fractions(own.gallery.metrics(found)) for name, found in baselines.items()},
        "measured_while_building": {
            path.stem: read_json(path)
            for path in sorted((folder / "measured").glob("*.json"))
            if path.stem in (f"reading-{tree[-1]}", "elsewhere")
        },
    }


def across_trees(own: Measured, other: Measured) -> dict[str, Metric]:
    """What models of the other tree say of this one's, and a search over held-out models of both; one space holds them all."""
    mine, theirs = own.vectors[own.held_out], other.vectors[other.held_out]
    concept, others = own.gallery.concept[own.held_out], other.gallery.concept[other.held_out]
    shared = np.isin(concept, others)
    parts = mine[shared].double().numpy(), theirs.double().numpy(), concept[shared], others
    queries = np.intersect1d(concept, others)
    both = own.texts[queries] @ torch.cat([mine, theirs]).mT
    found = text_to_model(both.double().numpy(), queries, np.concatenate([concept, others]))
    return {
        "nearest_model_of_the_other_tree_top1": nearest_label(*parts),
        "one_class_auroc_across_trees": one_class(*parts),
    } | {f"both_trees_{name}": metric for name, metric in found.items()}


def same_texts(labels: Sequence[str]) -> list[str]:
    """Labels that several concepts share, which no text can tell apart."""
    return sorted(label for label, count in Counter(labels).items() if count > 1)


def as_fractions(metrics: dict[str, Metric]) -> dict[str, dict[str, float]]:
    """Metrics as plain numbers."""
    return {name: asdict(metric) for name, metric in metrics.items()}
