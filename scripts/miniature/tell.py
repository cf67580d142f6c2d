"""Step 6f: the experts that tell categories, and what ships of them: each tree's ancestor without its head, and an expert small enough for the budget."""

import json
from typing import Final

from safetensors.torch import load_file, save_file

from app.places import MINIATURE
from retrieval.encoder import Encoder
from retrieval.probex.make import make_category_expert
from scripts.miniature.categories import HEAD, Classifiers, shipped
from scripts.miniature.classifiers import TREES
from scripts.miniature.settings import Build, atomic, log

SHIPPED: Final = {"vit": "mini-vit", "resnet": "mini-resnet"}


def make_experts(build: Build) -> None:
    """Write ``categories/<tree>.safetensors`` and ``ancestors/<tree>.safetensors``."""
    encoder = Encoder.load(MINIATURE / "encoder")
    for tree, name in SHIPPED.items():
        data = Classifiers(build, tree)
        root = load_file(build / f"classifiers-{tree}" / "ancestor" / "model.safetensors")
        kept = {key: value.half().contiguous() for key, value in root.items() if not key.startswith(HEAD) and value.ndim > 1}
        with atomic(build / "ancestors" / f"{name}.safetensors") as path:
            save_file(kept, path, {"format": "pt"})
        expert, right = make_category_expert(data.study, shipped(data.layers), encoder, name, TREES[tree].family)
        with atomic(build / "categories" / f"{name}.safetensors") as path:
            expert.save(path)
        log.info("%s: %.1f %% of the categories of validation models; %s", name, 100 * right, json.dumps({"layers": len(expert.layers)}))
