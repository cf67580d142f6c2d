"""Step 6f: the experts that tell categories, and what ships of them: each tree's ancestor without its head, and an expert small enough for the budget."""

import json
from typing import Final

from safetensors.torch import load_file, save_file

from app.places import MINIATURE
from retrieval.encoder import Encoder
from retrieval.probex.fit import ExpertConfig
from retrieval.probex.make import make_category_expert
from retrieval.probex.sketch import SketchConfig
from scripts.miniature.categories import HEAD, Classifiers
from scripts.miniature.classifiers import TREES
from scripts.miniature.settings import Build, atomic, log

SHIPPED: Final = {"vit": "mini-vit", "resnet": "mini-resnet"}
LAYERS: Final = 8  # of what ships, the best
DIRECTIONS: Final = 16  # a side


def make_experts(build: Build) -> None:
    """Write ``categories/<tree>.safetensors`` and ``ancestors/<tree>.safetensors``."""
    encoder = Encoder.load(MINIATURE / "encoder")
    for tree, name in SHIPPED.items():
        data = Classifiers(build, tree)
        root = load_file(build / f"classifiers-{tree}" / "ancestor" / "model.safetensors")
        kept = {key: value.half().contiguous() for key, value in root.items() if not key.startswith(HEAD) and value.ndim > 1}
        with atomic(build / "ancestors" / f"{name}.safetensors") as path:
            save_file(kept, path, {"format": "pt"})
        config = ExpertConfig(SketchConfig(data.layers, DIRECTIONS, DIRECTIONS, quadratic=0.0, ridge=0.05, most_layers=LAYERS))
        expert, right = make_category_expert(data.study, config, encoder, name, TREES[tree].family, f"ancestors/{name}.safetensors")
        with atomic(build / "categories" / f"{name}.safetensors") as path:
            expert.save(path)
        log.info("%s: %.1f %% of the categories of validation models; %s", name, 100 * right, json.dumps({"layers": len(expert.layers)}))
