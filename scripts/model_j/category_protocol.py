"""ProbeX's protocol on a folder of classifiers in Model-J's layout: which categories each was trained on, told from the weights of single layers.

Every encoder is fitted on ``train``, chosen on ``val`` and read on ``test``: ProbeX and MVProbe as published (one layer, binary cross-entropy a category, the
best of every 25th epoch), a dense linear map and Loradex's closed form. With several layers in the files each layer is tried on ``val`` by the last two.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora.header import Header
from loradex.retrieval.measure.baselines import PrincipalWeights
from loradex.retrieval.measure.metrics import category_accuracy
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.training.category_dataset import SPLITS, CategoryStudy, category_study, find_classifiers
from loradex.retrieval.training.concept_dataset import Aim
from loradex.retrieval.training.fit import ExpertConfig, fit, tells_categories
from scripts.model_j.fetch import Report

PENALTIES: Final = (0.01, 0.1, 1.0, 10.0)  # of the dense map
FORMS: Final = tuple((directions, ridge) for directions in (16, 32, 64, 128) for ridge in (0.03, 0.3))
WEIGHT: Final = ".weight"


@dataclass(frozen=True, slots=True)
class CategoryOptions:
    """What to measure, and how; ``layer`` is the best by default of those in the files."""

    folder: Path
    layer: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"  # of probes
    epochs: int | None = None
    out: Path | None = None


def run_categories(options: CategoryOptions, report: Report = lambda done, total, what: None) -> dict[str, Any]:
    """Every encoder and seed on one folder, as one JSON document.

    Raises:
        FileUnsupported: the folder holds too little, or not the layer.
    """
    found = find_classifiers(options.folder)
    headers = [Header.read(model.path) for model in found]
    counts = {split: sum(model.split == split for model in found) for split in SPLITS}
    if min(counts.values()) < 2:
        raise FileUnsupported(
            f"{options.folder}: expected models with categories in train, val and test, found {counts}; fetch them first"
        )
    layers = sorted(
        name.removesuffix(WEIGHT)
        for name, info in headers[0].tensors.items()
        if name.endswith(WEIGHT) and len(info.shape) > 1
    )
    if options.layer and options.layer not in layers:
        raise FileUnsupported(
            f"{options.folder}: expected layer {options.layer}, found {', '.join(layers[:5])}; name one with --layer"
        )

    def study_of(layer: str) -> CategoryStudy:
        return category_study({layer: Factors.of_matrices(matrices(headers, layer))}, found)

    sweep = {}
    for number, layer in enumerate(layers if len(layers) > 1 else ()):
        report(number, len(layers), layer)
        study = study_of(layer)
        sweep[layer] = {
            "dense linear": dense(study, [layer], study.rows("train"), PENALTIES).worth,
            "Loradex": closed_form(study, layer)[1],
        }
    layer = options.layer or max(layers, key=lambda name: sweep.get(name, {}).get("dense linear", 0.0))
    study = study_of(layer)
    rows = [{"encoder": name, "seed": seed, **told} for name, seed, told in encoders(study, layer, options, report)]
    document = {
        "folder": str(options.folder),
        "layer": layer,
        "models": counts,
        "categories": len(study.names),
        "layers": sweep,
        "results": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(document, indent=1))
    return document


def matrices(headers: list[Header], layer: str) -> Tensor:
    """One layer of all models (models, out, in), kernels of convolutions laid out flat, in half precision."""
    name = layer + WEIGHT
    return torch.stack([header.load([name])[name].flatten(1).half() for header in headers])


def encoders(
    study: CategoryStudy, layer: str, options: CategoryOptions, report: Report
) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
    """Every encoder, fitted and read on ``test``."""
    rows, test = study.rows("train"), study.rows("test")
    unseen = study.take(test)
    report(0, 1, "dense linear")
    best = dense(study, [layer], rows, PENALTIES)
    yield (
        "dense linear",
        None,
        {"accuracy": told(study, test, best.model.encode(unseen)), "parameters": best.parameters},
    )
    report(0, 1, "Loradex")
    config, _ = closed_form(study, layer)
    fitted = fit(study, rows, config)
    yield "Loradex", None, {"accuracy": told(study, test, fitted.scores(unseen)), "parameters": fitted.parameters}
    for name, kind in {"ProbeX as published": "probex", "MVProbe": "mvprobe"}.items():
        for seed in options.seeds:
            report(seed, len(options.seeds), f"{name}, seed {seed}")
            config = tells_categories(kind, (layer,), len(study.names)).changed(seed=seed)
            fitted = fit(
                study, rows, config.changed(epochs=options.epochs) if options.epochs else config, device=options.device
            )
            yield name, seed, {"accuracy": told(study, test, fitted.scores(unseen)), "parameters": fitted.parameters}


def told(study: CategoryStudy, rows: Tensor, scores: Tensor) -> dict[str, Any]:
    """The accuracy a category."""
    return asdict(category_accuracy(scores.double().numpy(), study.members[rows].numpy()))


@dataclass(frozen=True, slots=True)
class DenseMap:
    """A linear map from every weight of some layers; ``worth`` is how well it does on ``val``."""

    model: PrincipalWeights
    penalty: float
    worth: float
    parameters: int


def dense(study: CategoryStudy, layers: Sequence[str], rows: Tensor, penalties: Sequence[float]) -> DenseMap:
    """A linear map from every weight of some layers, fitted on some models with the penalty that does best on ``val``."""
    train, truth, unseen = study.take(rows, layers), study.aims(rows, Aim.LABELS)[0], study.take(study.judged, layers)
    tried = [PrincipalWeights.fit(train, truth, len(rows), penalty) for penalty in penalties]
    worth = [study.merit(model.encode(unseen), study.judged) for model in tried]
    best = int(np.argmax(worth))
    parameters = sum(study.models[layer].up.shape[1] * study.models[layer].down.shape[2] for layer in layers) * len(
        study.names
    )
    return DenseMap(tried[best], penalties[best], worth[best], parameters)


def closed_form(study: CategoryStudy, layer: str) -> tuple[ExpertConfig, float]:
    """Our closed form of a layer that does best on ``val``, and how well that is."""
    rows, judged = study.rows("train"), study.judged
    unseen = study.take(judged, [layer])
    form = tells_categories("loradex", (layer,), len(study.names))
    configs = [form.changed(outputs=directions, inputs=directions, ridge=ridge) for directions, ridge in FORMS]
    worth = [study.merit(fit(study, rows, config).scores(unseen), judged) for config in configs]
    best = int(np.argmax(worth))
    return configs[best], worth[best]
