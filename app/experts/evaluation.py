"""``loradex evaluate``: metrics of an expert on held-out concepts, and of baselines where some ship."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from loradex.app.experts.category_evaluation import evaluate_classifiers, evaluate_shipped_classifiers
from loradex.app.experts.expert_metrics import metrics_path, note_measured
from loradex.app.experts.lora_evaluation import LoraEvaluation, cross_tree_metrics, metrics_document
from loradex.app.paths import MINIATURE, encoder_folders, read_json
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.measure.baselines import Baselines
from loradex.retrieval.measure.gallery import HELD_OUT, synonym_accuracy
from loradex.retrieval.training.concept_dataset import split_concepts
from loradex.retrieval.training.labelled_classifiers import find_classifiers
from loradex.retrieval.training.labelled_loras import LabelledLora, find_labelled_loras

LORA_TREES: Final = ("mini-a", "mini-b")  # of the miniature; its other trees are of classifiers


def evaluate_folder(folder: Path, labels: Path | None = None) -> dict[str, Any]:
    """Evaluate the expert that reads most files of a folder of labelled models.

    What is measured takes the place of figures that are only claimed of an expert, as of one that somebody shared.

    Args:
        folder: classifiers, or LoRAs in Model-J's layout or split by the names of concepts as ``loradex train`` does.
        labels: a CSV of labels; by default labels are read from headers and side-cars.

    Raises:
        LoradexError: no expert reads any LoRA of a held-out concept, or any classifier.
    """
    encoder = Encoder.load(*encoder_folders())
    if not labels and (classifiers := find_classifiers(folder)):
        return evaluate_classifiers(folder, classifiers, encoder)
    readable_by_tree: dict[str, list[LabelledLora]] = defaultdict(list)
    for file in find_labelled_loras(folder, labels):
        lora = LoraFile.open(file.path)
        for tree, expert in encoder.experts.items():
            if len(expert.readable_layers(lora)) == len(expert.layers):
                readable_by_tree[tree].append(file)
    tree, files = max(readable_by_tree.items(), key=lambda item: len(item[1]), default=("none", []))
    names = list(dict.fromkeys(file.class_name for file in files))
    concept = torch.tensor([names.index(file.class_name) for file in files])
    split = np.array([file.split for file in files])
    if HELD_OUT not in split:
        raise FileUnsupported(
            f"{folder}: expected LoRAs of held-out concepts ({HELD_OUT}) that an expert reads, found {dict(Counter(split.tolist()))} for {tree}"
        )
    splits = split_concepts(concept, split, len(names))
    evaluation = LoraEvaluation(files, encoder.experts[tree], encoder, names, splits)
    document = evaluation.document(str(folder), evaluation.metrics())
    checkpoint = encoder.expert_files[tree]
    is_own = not checkpoint.is_relative_to(MINIATURE)
    on = f"LoRAs of held-out concepts in {folder.absolute().name} (loradex evaluate)"
    noted = is_own and note_measured(checkpoint, on, document["metrics"])
    return document | {"tree": tree, "noted": str(metrics_path(checkpoint)) if noted else None}


def evaluate_miniature(tree: str = "mini-a", folder: Path = MINIATURE) -> dict[str, Any]:
    """Evaluate the shipped expert of one tree, and baselines, with the figures from when the miniature was built."""
    if tree not in LORA_TREES:
        return evaluate_shipped_classifiers(tree, folder)
    encoder, concepts = Encoder.load(folder / "encoder"), read_json(folder / "concepts.json")
    labels, splits = [concept["label"] for concept in concepts], np.array([concept["split"] for concept in concepts])
    own, other = (
        LoraEvaluation(find_labelled_loras(folder / "models" / name), encoder.experts[name], encoder, labels, splits)
        for name in (tree, *(name for name in LORA_TREES if name != tree))
    )
    metrics = own.metrics() | cross_tree_metrics(own, other)
    for kind in "synonym", "keyword":
        words = read_json(folder / f"{kind}s.json")
        truth = np.array([labels.index(word["label"]) for word in words])
        vectors = encoder.encode_texts([word["word"] for word in words])
        metrics[f"{kind}_top10"] = synonym_accuracy(vectors, own.texts, truth)
    baselines = Baselines.load(folder / "baselines" / f"{tree}.safetensors").scores(own.models, own.texts)
    baselines["file_names"] = encoder.encode_texts(own.names) @ own.texts.mT
    return own.document(f"miniature/{tree}", metrics) | {
        "baselines": {name: metrics_document(own.baseline_metrics(scores)) for name, scores in baselines.items()},
        "measured_while_building": {
            path.stem: read_json(path)
            for path in sorted((folder / "measured").glob("*.json"))
            if path.stem in (f"reading-{tree[-1]}", "elsewhere")
        },
    }
