"""Step 7: experts and baselines, chosen on validation concepts, then read once on held-out ones.

Every trial is written to ``trials-<fleet>.jsonl``; the chosen settings are in ``experts.json`` before a held-out concept is read.
"""

import json
from collections.abc import Callable

from torch import Tensor

from scripts.miniature.settings import Build, log
from scripts.miniature.study import Study, quick_scores

VALIDATION = "val_holdout"
SIZES, WHITENINGS, RIDGES = (8, 12, 16, 24), (0.0, 0.25, 0.5), (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


class Trials:
    """Scores of settings on validation concepts, each measured once and kept."""

    def __init__(self, build: Build, fleet: str) -> None:
        """Read the trials made before."""
        self.study = Study.load(build, fleet)
        self.path = build / f"trials-{fleet}.jsonl"
        self.made = {}
        if self.path.exists():
            self.made = {row["name"]: row for row in map(json.loads, self.path.read_text().splitlines())}
        self.train, self.validation = self.study.rows("train"), self.study.rows(VALIDATION)

    def score(self, name: str, encode: Callable[[], tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Scores of ``encode()``, which gives vectors of the validation models and the texts to compare them with."""
        if name not in self.made:
            vectors, texts = encode()
            row = {"name": name} | quick_scores(vectors, self.study.concept[self.validation], texts, self.study.candidates("validation"))
            self.made[name] = row
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            log.info("trial %s", row)
        return self.made[name]


def merit(row: dict[str, float]) -> float:
    """What choices are made by: the mean of top-1 among validation concepts, top-1 among all, and mAP."""
    return (row["top1"] + row["all_top1"] + row["map"]) / 3
