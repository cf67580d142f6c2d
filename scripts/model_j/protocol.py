"""The papers' protocol on a folder of LoRAs in Model-J's layout: every encoder fitted on ``train``, chosen on validation models, read on the test models.

ProbeX and MVProbe are trained as ``published`` says, once a seed. Loradex's closed form and the dense linear map have neither a random start nor epochs: they
are fitted once, to the names placed in the space, and their labels are scored against the background of the training models.

Zero-shot candidates are the concepts of ``val_holdout`` and ``test_holdout`` together, as in the official code, and beside that all concepts; in-distribution
ones are those of ``train``. What nearest models say is read twice: among held-out models (``Gallery.neighbours``), and of ``test`` from ``train``, as in the
papers' downstream tasks, there with one neighbour where the official code has two by default.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from loradex.app.experts.training import TEMPLATES, TrainOptions, choose_layers, of_one_family
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.measure.gallery import Gallery
from loradex.retrieval.measure.metrics import Metric
from loradex.retrieval.measure.neighbours import nearest_label, one_class
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.training.concept_dataset import HELD_OUT, SEEN, TRAINING, Study, study_of
from loradex.retrieval.training.labelled_loras import LabelledFile, find_labelled, pack
from scripts.model_j.concepts import checked, renamed, same_prompt
from scripts.model_j.encoders import Fit, ProtocolOptions, Report, encoders
from scripts.model_j.published import plain_texts


def run_protocol(options: ProtocolOptions, report: Report = lambda done, total, what: None) -> dict[str, Any]:
    """Every encoder and seed on one folder, as one JSON document; what ``options.out`` says already of the same models and settings is kept.

    Raises:
        FileUnsupported: the folder holds too little, or not the layer.
        CheckpointError: the text encoder cannot be loaded.
    """
    found = find_labelled(options.folder)
    alike, family, shapes = of_one_family(found)
    if options.layer not in shapes:
        raise FileUnsupported(
            f"{options.folder}: expected layer {options.layer}, found {len(shapes)} others such as {next(iter(shapes))}; name one with --layer"
        )
    named = renamed(alike)
    files = checked(options.folder, [file for file, _ in named])
    study, texts, layers = studied(files, shapes, options, report)
    document: dict[str, Any] = {
        "folder": str(options.folder),
        "family": family,
        "text_encoder": options.text_encoder,
        "layer": options.layer,
        "layers_read": len(layers),
        "layers_in_files": len(shapes),
        "epochs": options.epochs,
        "split": Gallery(study.concept_split, study.concept.numpy(), study.split).describe(),
        "left_out": len(found) - len(files),
        "candidates": {
            "heldout": len(held_out(study)),
            "all": len(study.names),
            "seen": len(study.candidates("train")),
        },
        "same_prompt": same_prompt(named),
    }
    rows = rows_in(options.out, document)
    for made in encoders(study, texts, options, layers, {(row["encoder"], row["seed"]) for row in rows}, report):
        metrics = {name: asdict(metric) for name, metric in read(study, made).items()}
        rows.append(
            {
                "encoder": made.name,
                "seed": made.seed,
                "layers": len(made.layers),
                "epochs": made.epochs,
                "metrics": metrics,
            }
        )
        if options.out:
            write(options.out, document | {"results": rows, "summary": summary(rows)})
    return document | {"results": rows, "summary": summary(rows)}


def studied(
    files: Sequence[LabelledFile], shapes: dict[str, tuple[int, int]], options: ProtocolOptions, report: Report
) -> tuple[Study, Tensor, tuple[str, ...]]:
    """The models in memory, CLIP's plain texts of their concepts, and the layers that Loradex reads: all, or the best of them that memory holds."""
    with tempfile.TemporaryDirectory() as place:
        space_of(options.text_encoder, sorted({file.class_name for file in files if file.split == TRAINING})).save(
            Path(place) / "space.safetensors"
        )
        encoder = Encoder.load(Path(place))
        clip = encoder.text_encoder
    layers: tuple[str, ...] = (options.layer,)
    paths = [file.path for file in files]
    if len(shapes) > 1:
        bare = study_of(files, {}, encoder, {})
        layers = choose_layers(
            TrainOptions(), paths, bare, shapes, LoraFile.open, lambda what, done, total: report(done, total, what)
        )
    needed = list(dict.fromkeys((options.layer, *layers)))
    packed = pack(paths, needed, lambda done: report(done, len(files), "reading"))
    study = study_of(files, packed, encoder, {})
    return study, plain_texts(clip, study.names), layers


def held_out(study: Study) -> np.ndarray:
    """The candidates of the official code's zero-shot figures."""
    return study.candidates("validation", "heldout")


def read(study: Study, made: Fit) -> dict[str, Metric]:
    """Every metric of one encoder on the test models."""
    tested = study.rows(SEEN, HELD_OUT)
    models, train = study.take(tested, made.layers), study.rows(TRAINING)
    kinds = study.concept_split.copy()
    kinds[held_out(study)] = "heldout"
    gallery = Gallery(kinds, study.concept[tested].numpy(), study.split[tested])
    found = gallery.metrics(made.unseen.scores(models)) | gallery.neighbours(made.unseen.encode(models))
    test = np.flatnonzero(gallery.split == SEEN)
    if len(test):
        found["in_distribution_top1"] = gallery.metrics(made.seen.scores(models))["in_distribution_top1"]
        vectors, references = (
            made.seen.encode(some).double().numpy() for some in (models, study.take(train, made.layers))
        )
        parts = vectors[test], references, gallery.concept[test], study.concept[train].numpy()
        found |= {
            "in_distribution_nearest_model_top1": nearest_label(*parts),
            "in_distribution_one_class_auroc": one_class(*parts),
        }
    return found


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean and standard deviation of each metric over the seeds of each encoder."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for name, metric in row["metrics"].items():
            values.setdefault(row["encoder"], {}).setdefault(name, []).append(metric["value"])
    return {
        encoder: {
            name: {"mean": float(np.mean(some)), "deviation": float(np.std(some)), "seeds": len(some)}
            for name, some in metrics.items()
        }
        for encoder, metrics in values.items()
    }


def space_of(text_encoder: str, names: Sequence[str]) -> Space:
    """A space of this text encoder, its centre that of the training concepts; a local one by its whole path, which does not depend on where the space lies."""
    kind, _, folder = text_encoder.partition(":")
    name = f"{kind}:{Path(folder).resolve()}" if kind == "local-dir" else text_encoder
    centre = TextEncoder.load(name, TEMPLATES).encode(names).mean(0)
    return Space(name, TEMPLATES, centre, centre.clone())


def rows_in(path: Path | None, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The results in a document that is like this one in all else; none where there is no such document."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return []
    alike = (
        isinstance(kept, dict)
        and "results" in kept
        and all(kept.get(name) == value for name, value in document.items())
    )
    return list(kept["results"]) if alike else []


def write(path: Path, document: dict[str, Any]) -> None:
    """Put a document in the place of its last version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
