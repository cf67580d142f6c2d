"""``python -m scripts.miniature [--build FOLDER] [STEP ...]``: builds the miniature; finished steps are skipped.

Without STEP all steps run. Four more run only when they are named: ``restore`` first copies the shipped base models
into the build folder, to train more LoRAs from them; ``zoo`` indexes what ships again; ``captioned`` writes the LoRAs
with known captions that ship; ``report`` prints the results as tables.
"""

import argparse
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from scripts.miniature.ablation import run_ablation
from scripts.miniature.base_models import BASE_MODELS, build_base
from scripts.miniature.caption_fleets import FLEETS as CAPTION_FLEETS
from scripts.miniature.caption_fleets import build_caption_fleet
from scripts.miniature.categories import measure_categories
from scripts.miniature.category_experts import ship_category_experts
from scripts.miniature.classifiers import TREES as CLASSIFIER_TREES
from scripts.miniature.classifiers import build_classifiers
from scripts.miniature.final_experts import build_final_experts
from scripts.miniature.fleet import FLEETS, build_fleet
from scripts.miniature.full_models import build_full_models
from scripts.miniature.grown import grow_pools
from scripts.miniature.grown_reading import measure_grown
from scripts.miniature.heldout import evaluate_heldout
from scripts.miniature.mini_clip import build_clip
from scripts.miniature.pictures import build_pictures
from scripts.miniature.ranking import measure_rankings
from scripts.miniature.recipes import choose_recipes
from scripts.miniature.report import report
from scripts.miniature.routing import measure_routing
from scripts.miniature.samples import build_samples
from scripts.miniature.settings import Build
from scripts.miniature.ship import build_previews, restore_parts, ship, ship_zoo
from scripts.miniature.ship_captioned import ship_captioned
from scripts.miniature.transfer import measure_transfer
from scripts.miniature.upsampler import build_upsampler
from scripts.miniature.words import build_words
from scripts.miniature.words_ablation import run_words_ablation

STEPS: dict[str, Callable[[Build], None]] = {
    "pictures": build_pictures,
    "words": build_words,
    "clip": build_clip,
    "upsampler": build_upsampler,
    **{f"base-{name}": partial(build_base, config=config) for name, config in BASE_MODELS.items()},
    "samples-a": partial(build_samples, tree="a"),
    "samples-b": partial(build_samples, tree="b"),
    **{f"fleet-{name}": partial(build_fleet, fleet=name) for name in FLEETS},
    **{f"captions-{name}": partial(build_caption_fleet, fleet=name) for name in CAPTION_FLEETS},
    "whole": build_full_models,
    **{f"classifiers-{tree}": partial(build_classifiers, tree=tree) for tree in CLASSIFIER_TREES},
    **{f"categories-{tree}": partial(measure_categories, tree=tree) for tree in ("vit", "resnet")},
    "routing": measure_routing,
    "tell": ship_category_experts,
    "previews": build_previews,
    **{f"ablation-{fleet}": partial(run_ablation, fleet=fleet) for fleet in ("a", "b")},
    "ablation-words": run_words_ablation,
    **{f"recipes-{fleet}": partial(choose_recipes, fleet=fleet) for fleet in ("a", "b")},
    **{f"ranking-{fleet}": partial(measure_rankings, fleet=fleet) for fleet in ("a", "b")},
    "final": build_final_experts,
    **{f"reading-{fleet}": partial(evaluate_heldout, fleet=fleet) for fleet in ("a", "b")},
    "elsewhere": measure_transfer,
    **{f"grown-{fleet}": partial(grow_pools, fleet=fleet) for fleet in ("a", "b")},
    **{f"reading-grown-{fleet}": partial(measure_grown, fleet=fleet) for fleet in ("a", "b")},
    "ship": ship,
}


def main() -> None:
    """Run the named steps, or all, in order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=Path("build/miniature"))
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(STEPS))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    build = Build(arguments.build)
    if "restore" in arguments.steps:
        restore_parts(build)
    for name, step in STEPS.items():
        if not arguments.steps or name in arguments.steps:
            step(build)
    if "zoo" in arguments.steps:
        ship_zoo(build)
    if "captioned" in arguments.steps:
        ship_captioned(build)
    if "report" in arguments.steps:
        report(build)


if __name__ == "__main__":
    main()
