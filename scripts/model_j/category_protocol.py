"""ProbeX's protocol on a folder of classifiers in Model-J's layout: predict the categories of each from single layers.

Every encoder is fitted on ``train``, chosen on ``val`` and measured on ``test``: ProbeX and MVProbe as published (one
layer, binary cross-entropy for each category, the best of every 25th epoch), a dense linear map, and Loradex's closed
form. If the files have several layers, the last two are first tried on each layer.
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
from loradex.retrieval.training.category_dataset import CategoryDataset, make_category_dataset
from loradex.retrieval.training.dataset import Aim
from loradex.retrieval.training.expert_config import ExpertConfig, category_config
from loradex.retrieval.training.fit import fit
from loradex.retrieval.training.labelled_classifiers import SPLITS, find_classifiers
from scripts.model_j.fetch import ProgressCallback

PENALTIES: Final = (0.01, 0.1, 1.0, 10.0)  # of the dense map
CLOSED_FORMS: Final = tuple((directions, ridge) for directions in (16, 32, 64, 128) for ridge in (0.03, 0.3))
WEIGHT_SUFFIX: Final = ".weight"


@dataclass(frozen=True, slots=True)
class CategoryOptions:
    """What to measure, and how; by default ``layer`` is the best of those in the files."""

    folder: Path
    layer: str | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "cpu"  # of probes
    epochs: int | None = None
    out: Path | None = None


def run_categories(
    options: CategoryOptions, report: ProgressCallback = lambda done, total, name: None
) -> dict[str, Any]:
    """Measure every encoder and seed on one folder; returns one JSON document.

    Raises:
        FileUnsupported: the folder has too few models, or lacks the layer.
    """
    models = find_classifiers(options.folder)
    headers = [Header.read(model.path) for model in models]
    counts = {split: sum(model.split == split for model in models) for split in SPLITS}
    if min(counts.values()) < 2:
        raise FileUnsupported(
            f"{options.folder}: expected models with categories in train, val and test, found {counts}; fetch them first"
        )
    layers = sorted(
        name.removesuffix(WEIGHT_SUFFIX)
        for name, info in headers[0].tensors.items()
        if name.endswith(WEIGHT_SUFFIX) and len(info.shape) > 1
    )
    if options.layer and options.layer not in layers:
        raise FileUnsupported(
            f"{options.folder}: expected layer {options.layer}, found {', '.join(layers[:5])}; name one with --layer"
        )

    def load_layer(layer: str) -> CategoryDataset:
        return make_category_dataset({layer: Factors.of_matrices(load_matrices(headers, layer))}, models)

    layer_scores = {}
    for number, layer in enumerate(layers if len(layers) > 1 else ()):
        report(number, len(layers), layer)
        dataset = load_layer(layer)
        layer_scores[layer] = {
            "dense linear": fit_dense(dataset, [layer], dataset.rows("train"), PENALTIES).score,
            "Loradex": choose_closed_form(dataset, layer)[1],
        }
    layer = options.layer or max(layers, key=lambda name: layer_scores.get(name, {}).get("dense linear", 0.0))
    dataset = load_layer(layer)
    results = [
        {"encoder": name, "seed": seed, **metrics}
        for name, seed, metrics in evaluate_encoders(dataset, layer, options, report)
    ]
    document = {
        "folder": str(options.folder),
        "layer": layer,
        "models": counts,
        "categories": len(dataset.names),
        "layers": layer_scores,
        "results": results,
    }
    if options.out:
        options.out.write_text(json.dumps(document, indent=1))
    return document


def load_matrices(headers: list[Header], layer: str) -> Tensor:
    """One layer of all models (models, out, in) in half precision; kernels of convolutions are flattened."""
    name = layer + WEIGHT_SUFFIX
    return torch.stack([header.load([name])[name].flatten(1).half() for header in headers])


def evaluate_encoders(
    dataset: CategoryDataset, layer: str, options: CategoryOptions, report: ProgressCallback
) -> Iterator[tuple[str, int | None, dict[str, Any]]]:
    """Fit every encoder and measure it on ``test``: name, seed and metrics of each."""
    rows, test = dataset.rows("train"), dataset.rows("test")
    test_models = dataset.take(test)
    report(0, 1, "dense linear")
    dense = fit_dense(dataset, [layer], rows, PENALTIES)
    yield (
        "dense linear",
        None,
        {"accuracy": measure_accuracy(dataset, test, dense.model.encode(test_models)), "parameters": dense.parameters},
    )
    report(0, 1, "Loradex")
    config, _ = choose_closed_form(dataset, layer)
    fitted = fit(dataset, rows, config)
    yield (
        "Loradex",
        None,
        {"accuracy": measure_accuracy(dataset, test, fitted.scores(test_models)), "parameters": fitted.parameters},
    )
    for name, architecture in {"ProbeX as published": "probex", "MVProbe": "mvprobe"}.items():
        for seed in options.seeds:
            report(seed, len(options.seeds), f"{name}, seed {seed}")
            config = category_config(architecture, (layer,), len(dataset.names)).with_settings(seed=seed)
            fitted = fit(
                dataset,
                rows,
                config.with_settings(epochs=options.epochs) if options.epochs else config,
                device=options.device,
            )
            yield (
                name,
                seed,
                {
                    "accuracy": measure_accuracy(dataset, test, fitted.scores(test_models)),
                    "parameters": fitted.parameters,
                },
            )


def measure_accuracy(dataset: CategoryDataset, rows: Tensor, scores: Tensor) -> dict[str, Any]:
    """The accuracy over categories, as a JSON object."""
    return asdict(category_accuracy(scores.double().numpy(), dataset.members[rows].numpy()))


@dataclass(frozen=True, slots=True)
class DenseMap:
    """A linear map from all weights of some layers; ``score`` is its accuracy on ``val``."""

    model: PrincipalWeights
    penalty: float
    score: float
    parameters: int


def fit_dense(dataset: CategoryDataset, layers: Sequence[str], rows: Tensor, penalties: Sequence[float]) -> DenseMap:
    """Fit a linear map from all weights of some layers, with the penalty that does best on ``val``."""
    train, targets, validation_models = (
        dataset.take(rows, layers),
        dataset.regression_targets(rows, Aim.LABELS)[0],
        dataset.take(dataset.validation_rows, layers),
    )
    models = [PrincipalWeights.fit(train, targets, len(rows), penalty) for penalty in penalties]
    scores = [dataset.validation_score(model.encode(validation_models), dataset.validation_rows) for model in models]
    best = int(np.argmax(scores))
    parameters = sum(dataset.models[layer].up.shape[1] * dataset.models[layer].down.shape[2] for layer in layers) * len(
        dataset.names
    )
    return DenseMap(models[best], penalties[best], scores[best], parameters)


def choose_closed_form(dataset: CategoryDataset, layer: str) -> tuple[ExpertConfig, float]:
    """The settings of a layer's closed form that do best on ``val``, and their accuracy."""
    rows, validation_rows = dataset.rows("train"), dataset.validation_rows
    validation_models = dataset.take(validation_rows, [layer])
    default = category_config("loradex", (layer,), len(dataset.names))
    configs = [
        default.with_settings(outputs=directions, inputs=directions, ridge=ridge) for directions, ridge in CLOSED_FORMS
    ]
    scores = [
        dataset.validation_score(fit(dataset, rows, config).scores(validation_models), validation_rows)
        for config in configs
    ]
    best = int(np.argmax(scores))
    return configs[best], scores[best]
