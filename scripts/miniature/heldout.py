"""Step 10: the one look at held-out concepts: every encoder with its chosen recipe, over three seeds.

A seed draws nine tenths of the LoRAs of all concepts but the held-out ones and, where an encoder starts at random, its start.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from loradex.retrieval.measure.baselines import DenseLinear, PrincipalWeights, WeightStatistics
from loradex.retrieval.measure.gallery import Gallery
from loradex.retrieval.space.calibration import Background
from loradex.retrieval.training.concept_dataset import HELD_OUT, KNOWN, SEEN, Study
from loradex.retrieval.training.fit import Models, fit
from scripts.miniature.ablation import SEEDS, some_rows
from scripts.miniature.fleet_dataset import load_study
from scripts.miniature.recipes import Choice
from scripts.miniature.settings import Build, atomic, log

SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline beside its background."""

    model: DenseLinear | WeightStatistics | PrincipalWeights
    background: Background
    labels: Tensor

    def encode(self, models: Models) -> Tensor:
        """Unit vectors (models, dim)."""
        return self.model.encode(models)

    def scores(self, models: Models) -> Tensor:
        """Scores (models, concepts)."""
        return self.background.standardise(self.encode(models), self.labels)


def read_held_out(build: Build, fleet: str) -> None:
    """Write ``reading-<fleet>.json``: the metrics of every encoder and seed; those read before are kept."""
    path = build / f"reading-{fleet}.json"
    read: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    done = {(row["encoder"], row["seed"]) for row in read}
    study, choice = load_study(build, fleet)[0], Choice.load(build, fleet)
    tested = study.rows(SEEN, HELD_OUT)
    gallery = Gallery(study.concept_split, study.concept[tested].numpy(), study.split[tested])
    for seed in SEEDS:
        for name, encoder in encoders(study, choice, seed, done):
            models = study.take(tested)
            metrics = gallery.metrics(encoder.scores(models)) | gallery.neighbours(encoder.encode(models))
            read.append(
                {"encoder": name, "seed": seed, "metrics": {metric: asdict(found) for metric, found in metrics.items()}}
            )
            log.info(
                "held out, fleet %s, seed %d, %s: %s",
                fleet,
                seed,
                name,
                {metric: round(100 * found.value, 1) for metric, found in metrics.items()},
            )
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(read, indent=1))


def encoders(study: Study, choice: Choice, seed: int, done: set[tuple[str, int]]) -> Iterator[tuple[str, Any]]:
    """Each encoder that was not read before, fitted on LoRAs of all concepts but the held-out ones."""
    rows = some_rows(study, seed, SHARE, *KNOWN)
    train, targets = study.take(rows), study.targets[rows]
    baselines: dict[str, Callable[[], DenseLinear | WeightStatistics | PrincipalWeights]] = {
        "weight statistics": lambda: WeightStatistics.fit(train, targets, seed=seed),
        "dense linear": lambda: DenseLinear.fit(train, targets, *choice.dense),
        "PCA of weights": lambda: PrincipalWeights.fit(train, targets, *choice.principal),
    }
    for name, fitted in baselines.items():
        if (name, seed) not in done:
            model = fitted()
            yield name, Baseline(model, Background.of(model.encode(train)), study.labels)
    for name, config in choice.experts.items():
        if (name, seed) not in done:
            yield name, fit(study, rows, config.changed(seed=seed), early_stop=False)
