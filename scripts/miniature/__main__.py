"""``python -m scripts.miniature [--build FOLDER] [STEP ...]`` builds the miniature; finished steps are skipped.

``restore``, which runs only when it is named, copies the base models that ship into the build folder first, to train more LoRAs from them.
"""

import argparse
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from scripts.miniature.base import TREES, build_base
from scripts.miniature.draw import build_samples
from scripts.miniature.experts import run_trials
from scripts.miniature.final import build_final
from scripts.miniature.fleet import build_fleet
from scripts.miniature.mini_clip import build_clip
from scripts.miniature.pictures import build_pictures
from scripts.miniature.reading import read_held_out
from scripts.miniature.settings import Build
from scripts.miniature.ship import build_previews, restore_parts, ship
from scripts.miniature.upsampler import build_upsampler
from scripts.miniature.words import build_words

STEPS: dict[str, Callable[[Build], None]] = {
    "pictures": build_pictures,
    "words": build_words,
    "clip": build_clip,
    "upsampler": build_upsampler,
    "base-a": partial(build_base, tree=TREES["a"]),
    "base-b": partial(build_base, tree=TREES["b"]),
    "samples-a": partial(build_samples, tree="a"),
    "samples-b": partial(build_samples, tree="b"),
    "fleet-a": partial(build_fleet, fleet="a"),
    "fleet-b": partial(build_fleet, fleet="b"),
    "previews": build_previews,
    "trials-a": partial(run_trials, fleet="a"),
    "trials-b": partial(run_trials, fleet="b"),
    "final": build_final,
    "reading-a": partial(read_held_out, fleet="a"),
    "reading-b": partial(read_held_out, fleet="b"),
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


if __name__ == "__main__":
    main()
