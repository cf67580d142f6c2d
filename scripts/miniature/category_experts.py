"""Step 6f: the experts that tell categories, and what ships of their trees: the layers that they read, of each ancestor and of some test models."""

import json
import shutil
from dataclasses import replace
from typing import Any, Final

import torch

from loradex.app.experts.category_evaluation import evaluate_shipped_classifiers
from loradex.app.experts.expert_metrics import Measured
from loradex.app.paths import MINIATURE
from loradex.retrieval.ancestor import keep_layers, reach_of
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.training.build import make_category_expert
from scripts.miniature.categories import Classifiers, shipped
from scripts.miniature.classifiers import TREES
from scripts.miniature.settings import Build, log

NAMES: Final = {"vit": "mini-vit", "resnet": "mini-resnet"}
MODELS: Final = {"vit": 18, "resnet": 8}  # test models that ship


def ship_classifiers(build: Build) -> None:
    """Write the experts, their ancestors, some models, and what was measured, into the miniature."""
    for tree, name in NAMES.items():
        data = Classifiers(build, tree)
        encoder = Encoder.load(MINIATURE / "encoder")
        expert, right = make_category_expert(data.study, shipped(data), encoder, name, TREES[tree].family)
        base = f"ancestors/{name}.safetensors"
        keep_layers(data.base, expert.layers, MINIATURE / "encoder" / base, torch.float16)
        known = [model for model, split in zip(data.opened, data.study.split, strict=True) if split != "test"]
        place = MINIATURE / "encoder" / "categories" / f"{name}.safetensors"
        place.parent.mkdir(exist_ok=True)
        replace(expert, base=base, farthest=reach_of(known, expert.layers)).save(place)
        log.info(
            "%s: %.1f %% of the categories of validation models, reads %s",
            name,
            100 * right.value,
            ", ".join(expert.layers),
        )
        models = MINIATURE / "classifiers" / name
        shutil.rmtree(models, ignore_errors=True)
        for model in [model for model, split in zip(data.opened, data.study.split, strict=True) if split == "test"][
            : MODELS[tree]
        ]:
            keep_layers(model.path, expert.layers, models / model.path.relative_to(build / f"classifiers-{tree}"))
        ship_figures(build, tree, name)
        metrics = evaluate_shipped_classifiers(name)["metrics"]
        Measured(
            f"{MODELS[tree]} shipped classifiers that it never saw, 95 % intervals over models (loradex evaluate --tree {name})",
            metrics,
        ).save(place)


def ship_figures(build: Build, tree: str, name: str) -> None:
    """What every encoder said of all test models, a line for each seed."""
    found = json.loads((build / f"categories-{tree}.json").read_text())
    rows: list[str] = []
    for key, said in found.items():
        encoder, _, seed = key.partition(", seed ")
        if seed:
            rows.append(json.dumps({"encoder": encoder, "seed": int(seed)} | rounded(said)))
    place = MINIATURE / "measured" / f"categories-{name}.json"
    place.write_text("[\n" + ",\n".join(rows) + "\n]\n")


def rounded(said: dict[str, Any]) -> dict[str, Any]:
    """The same to a hundredth of a per cent."""
    return {key: rounded(value) if isinstance(value, dict) else round(value, 4) for key, value in said.items()}
