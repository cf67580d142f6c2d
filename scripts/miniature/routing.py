"""Step ``routing``: measures how often the model tree of a classifier is recognised from its weights alone.

Trees are recognised by their ancestors, or by the means of their training models. Every test model of three trees, two
of one architecture, is routed among the experts of all three, and among those of the other two, which must refuse it.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from loradex.app.paths import MINIATURE
from loradex.retrieval.ancestor import estimate_max_distance, save_mean
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileUnsupported, NoExpert
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.router import Router
from loradex.retrieval.training.build import build_category_expert
from loradex.retrieval.training.labelled_classifiers import find_classifiers
from scripts.miniature.categories import ClassifierData, shipped_config
from scripts.miniature.classifiers import TREES
from scripts.miniature.settings import Build, atomic, log

REFERENCES: Final = ("ancestor", "mean")  # by which a tree is recognised


def measure_routing(build: Build) -> None:
    """Write ``routing.json``."""
    if (build / "routing.json").exists():
        return
    encoder, results = Encoder.load(MINIATURE / "encoder"), {}
    for reference in REFERENCES:
        built = {tree: build_expert(build, tree, reference, encoder) for tree in TREES}
        experts, bases = (
            {tree: expert for tree, (expert, _) in built.items()},
            {tree: base for tree, (_, base) in built.items()},
        )
        results[reference] = {tree: route_test_models(build, tree, experts, bases) for tree in TREES} | {
            "reach": {tree: expert.max_distance for tree, expert in experts.items()}
        }
        log.info("routing by %s: %s", reference, results[reference])
    with atomic(build / "routing.json") as path:
        path.write_text(json.dumps(results, indent=1))


def build_expert(build: Build, tree: str, reference: str, encoder: Encoder) -> tuple[CategoryExpert, Path]:
    """A tree's expert, and the weights by which it is recognised: its ancestor, or the mean of its training models."""
    data, base = ClassifierData(build, tree), build / "means" / f"{tree}.safetensors"
    if reference == "mean":
        paths = [model.path for model in find_classifiers(build / f"classifiers-{tree}") if model.split == "train"]
        save_mean(paths, data.layers, base)
        data = ClassifierData(build, tree, base)
    expert, _ = build_category_expert(data.differences, shipped_config(data), encoder, tree, TREES[tree].family)
    non_test_models = [
        model for model, split in zip(data.opened, data.differences.split, strict=True) if split != "test"
    ]
    return replace(expert, max_distance=estimate_max_distance(non_test_models, expert.layers)), data.base


def route_test_models(
    build: Build, tree: str, experts: Mapping[str, CategoryExpert], bases: Mapping[str, Path]
) -> dict[str, Any]:
    """Count the test models of a tree: routed to it, refused, and refused by the experts of the other trees alone."""
    paths = [model.path for model in find_classifiers(build / f"classifiers-{tree}") if model.split == "test"]
    others = [name for name in experts if name != tree]
    with_tree = [routed_tree(path, Router(experts, bases)) for path in paths]
    without_tree = [
        routed_tree(path, Router({name: experts[name] for name in others}, {name: bases[name] for name in others}))
        for path in paths
    ]
    return {
        "n": len(paths),
        "right": with_tree.count(tree),
        "refused": with_tree.count(None),
        "refused_as_unknown": without_tree.count(None),
    }


def routed_tree(path: Path, router: Router) -> str | None:
    """The tree to which a file is routed; None if it is refused."""
    try:
        return router.route(router.open(path))[0].tree
    except (NoExpert, FileUnsupported):
        return None
