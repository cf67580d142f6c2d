"""The papers' protocol on a folder of LoRAs in Model-J's layout.

Every encoder is fitted on ``train``, chosen on validation models and measured on test models. ProbeX and MVProbe are
trained as in ``published``, once for each seed. Loradex's closed form and the dense linear map have neither a random
start nor epochs: they are fitted once, to the names' vectors in the space, and their labels are scored against the
background of the training models.

Candidates of zero-shot metrics are the concepts of ``val_holdout`` and ``test_holdout`` together, as in the official
code, and all concepts; candidates of in-distribution metrics are the concepts of ``train``. Nearest models are measured
twice: among held-out models (``Gallery.neighbour_metrics``), and of ``test`` from ``train`` as in the papers'
downstream tasks, with one neighbour where the official code has two by default.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from loradex.app.experts.lora_training import select_one_family
from loradex.app.experts.training_options import TrainOptions
from loradex.app.experts.training_steps import TEMPLATES, choose_layers
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.measure.gallery import Gallery
from loradex.retrieval.measure.metrics import Metric
from loradex.retrieval.measure.neighbours import nearest_label_accuracy, one_class_auroc
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.training.concept_dataset import HELD_OUT, SEEN, TRAINING, ConceptDataset, make_concept_dataset
from loradex.retrieval.training.labelled_loras import LabelledLora, find_labelled_loras
from loradex.retrieval.training.packing import pack_files
from scripts.model_j.concepts import check_splits, find_same_prompts, name_by_imagenet_class
from scripts.model_j.encoders import FittedEncoder, ProtocolOptions, fit_encoders
from scripts.model_j.fetch import ProgressCallback
from scripts.model_j.published import unnormalised_texts


def run_protocol(options: ProtocolOptions, report: ProgressCallback = lambda done, total, name: None) -> dict[str, Any]:
    """Measure every encoder and seed on one folder; returns one JSON document.

    Results in ``options.out`` for the same models and settings are kept.

    Raises:
        FileUnsupported: the folder has too few models, or lacks the layer.
        CheckpointError: the text encoder cannot be loaded.
    """
    all_files = find_labelled_loras(options.folder)
    family_files, family, shapes = select_one_family(all_files)
    if options.layer not in shapes:
        raise FileUnsupported(
            f"{options.folder}: expected layer {options.layer}, found {len(shapes)} others such as {next(iter(shapes))}; name one with --layer"
        )
    named_files = name_by_imagenet_class(family_files)
    files = check_splits(options.folder, [file for file, _ in named_files])
    dataset, texts, layers = load_dataset(files, shapes, options, report)
    document: dict[str, Any] = {
        "folder": str(options.folder),
        "family": family,
        "text_encoder": options.text_encoder,
        "layer": options.layer,
        "layers_read": len(layers),
        "layers_in_files": len(shapes),
        "epochs": options.epochs,
        "split": Gallery(dataset.concept_split, dataset.concept.numpy(), dataset.split).split_sizes(),
        "left_out": len(all_files) - len(files),
        "candidates": {
            "heldout": len(heldout_candidates(dataset)),
            "all": len(dataset.names),
            "seen": len(dataset.concepts_of("train")),
        },
        "same_prompt": find_same_prompts(named_files),
    }
    results = load_results(options.out, document)
    for encoder in fit_encoders(
        dataset, texts, options, layers, {(row["encoder"], row["seed"]) for row in results}, report
    ):
        metrics = {name: asdict(metric) for name, metric in evaluate_encoder(dataset, encoder).items()}
        results.append(
            {
                "encoder": encoder.name,
                "seed": encoder.seed,
                "layers": len(encoder.layers),
                "epochs": encoder.epochs,
                "metrics": metrics,
            }
        )
        if options.out:
            write_document(options.out, document | {"results": results, "summary": summarise(results)})
    return document | {"results": results, "summary": summarise(results)}


def load_dataset(
    files: Sequence[LabelledLora],
    shapes: dict[str, tuple[int, int]],
    options: ProtocolOptions,
    report: ProgressCallback,
) -> tuple[ConceptDataset, Tensor, tuple[str, ...]]:
    """The models in memory, CLIP's unnormalised texts of their concepts, and the layers that Loradex reads.

    These are all layers, or the best of them that fit into memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        make_space(options.text_encoder, sorted({file.class_name for file in files if file.split == TRAINING})).save(
            Path(folder) / "space.safetensors"
        )
        encoder = Encoder.load(Path(folder))
        clip = encoder.text_encoder
    layers: tuple[str, ...] = (options.layer,)
    paths = [file.path for file in files]
    if len(shapes) > 1:
        without_weights = make_concept_dataset(files, {}, encoder, {})
        layers = choose_layers(
            TrainOptions(),
            paths,
            without_weights,
            shapes,
            LoraFile.open,
            lambda step, done, total: report(done, total, step),
        )
    needed = list(dict.fromkeys((options.layer, *layers)))
    packed = pack_files(paths, needed, lambda done: report(done, len(files), "reading"))
    dataset = make_concept_dataset(files, packed, encoder, {})
    return dataset, unnormalised_texts(clip, dataset.names), layers


def heldout_candidates(dataset: ConceptDataset) -> np.ndarray:
    """The candidates of the official code's zero-shot metrics."""
    return dataset.concepts_of("validation", "heldout")


def evaluate_encoder(dataset: ConceptDataset, encoder: FittedEncoder) -> dict[str, Metric]:
    """All metrics of one encoder on the test models."""
    test_rows = dataset.rows(SEEN, HELD_OUT)
    models, training_rows = dataset.take(test_rows, encoder.layers), dataset.rows(TRAINING)
    concept_split = dataset.concept_split.copy()
    concept_split[heldout_candidates(dataset)] = "heldout"
    gallery = Gallery(concept_split, dataset.concept[test_rows].numpy(), dataset.split[test_rows])
    metrics = gallery.ranking_metrics(encoder.unseen.scores(models)) | gallery.neighbour_metrics(
        encoder.unseen.encode(models)
    )
    seen = np.flatnonzero(gallery.split == SEEN)
    if len(seen):
        metrics["in_distribution_top1"] = gallery.ranking_metrics(encoder.seen.scores(models))["in_distribution_top1"]
        vectors, references = (
            encoder.seen.encode(selected).double().numpy()
            for selected in (models, dataset.take(training_rows, encoder.layers))
        )
        arguments = vectors[seen], references, gallery.concept[seen], dataset.concept[training_rows].numpy()
        metrics |= {
            "in_distribution_nearest_model_top1": nearest_label_accuracy(*arguments),
            "in_distribution_one_class_auroc": one_class_auroc(*arguments),
        }
    return metrics


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation of each metric over the seeds of each encoder."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for name, metric in row["metrics"].items():
            values.setdefault(row["encoder"], {}).setdefault(name, []).append(metric["value"])
    return {
        encoder: {
            name: {"mean": float(np.mean(sample)), "deviation": float(np.std(sample)), "seeds": len(sample)}
            for name, sample in metrics.items()
        }
        for encoder, metrics in values.items()
    }


def make_space(text_encoder: str, names: Sequence[str]) -> Space:
    """A space of this text encoder with the centre of the training concepts.

    A local text encoder is named by its absolute path, which is valid wherever the space lies.
    """
    kind, _, folder = text_encoder.partition(":")
    name = f"{kind}:{Path(folder).resolve()}" if kind == "local-dir" else text_encoder
    centre = TextEncoder.load(name, TEMPLATES).encode(names).mean(0)
    return Space(name, TEMPLATES, centre, centre.clone())


def load_results(path: Path | None, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The results in a saved document that agrees with ``document`` in all else; none if there is no such document."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return []
    same_run = (
        isinstance(saved, dict)
        and "results" in saved
        and all(saved.get(name) == value for name, value in document.items())
    )
    return list(saved["results"]) if same_run else []


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Replace a document atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
