"""Step ``tell``: builds the experts that predict categories, and ships them.

The layers that they read ship too, of each ancestor and of some test models.
"""

import json
import shutil
from dataclasses import replace
from typing import Any, Final

import torch

from loradex.app.experts.category_evaluation import evaluate_shipped_classifiers
from loradex.app.experts.expert_metrics import ExpertMetrics
from loradex.app.paths import MINIATURE
from loradex.retrieval.ancestor import estimate_max_distance, save_layers
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.training.build import build_category_expert
from scripts.miniature.categories import ClassifierData, shipped_config
from scripts.miniature.classifiers import TREES
from scripts.miniature.settings import Build, log

SHIPPED_TREES: Final = {"vit": "mini-vit", "resnet": "mini-resnet"}
SHIPPED_MODELS: Final = {"vit": 18, "resnet": 8}  # number of test models that ship


def ship_category_experts(build: Build) -> None:
    """Write the experts, their ancestors, some models and the measurements into the miniature."""
    for tree, name in SHIPPED_TREES.items():
        data = ClassifierData(build, tree)
        encoder = Encoder.load(MINIATURE / "encoder")
        expert, accuracy = build_category_expert(
            data.differences, shipped_config(data), encoder, name, TREES[tree].family
        )
        base = f"ancestors/{name}.safetensors"
        save_layers(data.base, expert.layers, MINIATURE / "encoder" / base, torch.float16)
        non_test_models = [
            model for model, split in zip(data.opened, data.differences.split, strict=True) if split != "test"
        ]
        path = MINIATURE / "encoder" / "categories" / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        replace(expert, base=base, max_distance=estimate_max_distance(non_test_models, expert.layers)).save(path)
        log.info(
            "%s: %.1f %% of the categories of validation models, reads %s",
            name,
            100 * accuracy.value,
            ", ".join(expert.layers),
        )
        folder = MINIATURE / "classifiers" / name
        shutil.rmtree(folder, ignore_errors=True)
        test_models = [
            model for model, split in zip(data.opened, data.differences.split, strict=True) if split == "test"
        ]
        for model in test_models[: SHIPPED_MODELS[tree]]:
            save_layers(model.path, expert.layers, folder / model.path.relative_to(build / f"classifiers-{tree}"))
        ship_measurements(build, tree, name)
        metrics = evaluate_shipped_classifiers(name)["metrics"]
        ExpertMetrics(
            f"{SHIPPED_MODELS[tree]} shipped classifiers that it never saw, 95 % intervals over models (loradex evaluate --tree {name})",
            metrics,
        ).save(path)


def ship_measurements(build: Build, tree: str, name: str) -> None:
    """Write the results of every encoder on test models, one line for each encoder and seed."""
    results = json.loads((build / f"categories-{tree}.json").read_text())
    rows: list[str] = []
    for key, metrics in results.items():
        encoder, _, seed = key.partition(", seed ")
        if seed:
            rows.append(json.dumps({"encoder": encoder, "seed": int(seed)} | round_values(metrics)))
    path = MINIATURE / "measured" / f"categories-{name}.json"
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n")


def round_values(metrics: dict[str, Any]) -> dict[str, Any]:
    """Round all values of nested metrics to a hundredth of a per cent."""
    return {key: round_values(value) if isinstance(value, dict) else round(value, 4) for key, value in metrics.items()}
