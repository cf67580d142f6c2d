"""Step 6g: whether the tree of a whole model is told from its weights alone, by the ancestors and by the means of the training models in their place.

Every test model of three trees, two of one architecture, is routed among experts of all three, and among those of the others, which must refuse it.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from loradex.app.paths import MINIATURE
from loradex.retrieval.ancestor import reach_of, write_mean
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileUnsupported, NoExpert
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.router import Router
from loradex.retrieval.training.build import make_category_expert
from loradex.retrieval.training.category_dataset import find_classifiers
from scripts.miniature.categories import Classifiers, shipped
from scripts.miniature.classifiers import TREES
from scripts.miniature.settings import Build, atomic, log

WAYS: Final = ("ancestor", "mean")


def measure_routing(build: Build) -> None:
    """Write ``routing.json``."""
    if (build / "routing.json").exists():
        return
    encoder, found = Encoder.load(MINIATURE / "encoder"), {}
    for way in WAYS:
        made = {tree: expert_of(build, tree, way, encoder) for tree in TREES}
        experts, bases = (
            {tree: expert for tree, (expert, _) in made.items()},
            {tree: base for tree, (_, base) in made.items()},
        )
        found[way] = {tree: routed(build, tree, experts, bases) for tree in TREES} | {
            "reach": {tree: expert.reach for tree, expert in experts.items()}
        }
        log.info("routing by %s: %s", way, found[way])
    with atomic(build / "routing.json") as path:
        path.write_text(json.dumps(found, indent=1))


def expert_of(build: Build, tree: str, way: str, encoder: Encoder) -> tuple[CategoryExpert, Path]:
    """A tree's expert, and the weights by which it is told."""
    data, base = Classifiers(build, tree), build / "means" / f"{tree}.safetensors"
    if way == "mean":
        known = [model.path for model in find_classifiers(build / f"classifiers-{tree}") if model.split == "train"]
        write_mean(known, data.layers, base)
        data = Classifiers(build, tree, base)
    expert, _ = make_category_expert(data.study, shipped(data), encoder, tree, TREES[tree].family)
    trained = [model for model, split in zip(data.opened, data.study.split, strict=True) if split != "test"]
    return replace(expert, farthest=reach_of(trained, expert.layers)), data.base


def routed(build: Build, tree: str, experts: Mapping[str, CategoryExpert], bases: Mapping[str, Path]) -> dict[str, Any]:
    """How many test models go to their tree, how many to another, how many are refused where it is known; and how many are where it is not."""
    tests = [model.path for model in find_classifiers(build / f"classifiers-{tree}") if model.split == "test"]
    others = [name for name in experts if name != tree]
    known = [tree_of(path, Router(experts, bases)) for path in tests]
    unknown = [
        tree_of(path, Router({name: experts[name] for name in others}, {name: bases[name] for name in others}))
        for path in tests
    ]
    return {
        "n": len(tests),
        "right": known.count(tree),
        "refused": known.count(None),
        "refused_as_unknown": unknown.count(None),
    }


def tree_of(path: Path, router: Router) -> str | None:
    """The tree to which a file goes; None if it is refused."""
    try:
        return router.route(router.open(path))[0].tree
    except (NoExpert, FileUnsupported):
        return None
