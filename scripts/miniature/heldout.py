"""Steps ``reading-a`` and ``reading-b``: measure every encoder once on held-out concepts, with its chosen recipe.

There are three seeds. A seed draws nine tenths of the LoRAs whose concepts are not held out, and initialises encoders
that start at random.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from loradex.retrieval.measure.baselines import DenseLinear, PrincipalWeights, WeightStatistics
from loradex.retrieval.measure.gallery import Gallery
from loradex.retrieval.probex.batched_factors import LayerFactors
from loradex.retrieval.space.calibration import Background
from loradex.retrieval.training.concept_dataset import FINAL_SPLITS, HELD_OUT, SEEN, ConceptDataset
from loradex.retrieval.training.fit import fit
from scripts.miniature.ablation import SEEDS, sample_rows
from scripts.miniature.fleet_dataset import load_fleet_dataset
from scripts.miniature.recipes import ChosenRecipes
from scripts.miniature.settings import Build, atomic, log

TRAINING_SHARE = 0.9  # of the LoRAs whose concepts are not held out


@dataclass(frozen=True, slots=True)
class BaselineEncoder:
    """A baseline that scores labels against its background."""

    model: DenseLinear | WeightStatistics | PrincipalWeights
    background: Background
    labels: Tensor

    def encode(self, models: LayerFactors) -> Tensor:
        """Unit vectors (models, dim)."""
        return self.model.encode(models)

    def scores(self, models: LayerFactors) -> Tensor:
        """Scores (models, concepts)."""
        return self.background.z_scores(self.encode(models), self.labels)


def evaluate_heldout(build: Build, fleet: str) -> None:
    """Write ``reading-<fleet>.json``: metrics of every encoder and seed; existing results are kept."""
    path = build / f"reading-{fleet}.json"
    results: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    done = {(row["encoder"], row["seed"]) for row in results}
    dataset, recipes = load_fleet_dataset(build, fleet)[0], ChosenRecipes.load(build, fleet)
    test_rows = dataset.rows(SEEN, HELD_OUT)
    gallery = Gallery(dataset.concept_split, dataset.concept[test_rows].numpy(), dataset.split[test_rows])
    for seed in SEEDS:
        for name, encoder in fit_encoders(dataset, recipes, seed, done):
            models = dataset.take(test_rows)
            metrics = gallery.ranking_metrics(encoder.scores(models)) | gallery.neighbour_metrics(
                encoder.encode(models)
            )
            results.append(
                {"encoder": name, "seed": seed, "metrics": {key: asdict(metric) for key, metric in metrics.items()}}
            )
            log.info(
                "held out, fleet %s, seed %d, %s: %s",
                fleet,
                seed,
                name,
                {key: round(100 * metric.value, 1) for key, metric in metrics.items()},
            )
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(results, indent=1))


def fit_encoders(
    dataset: ConceptDataset, recipes: ChosenRecipes, seed: int, done: set[tuple[str, int]]
) -> Iterator[tuple[str, Any]]:
    """Fit and yield every encoder that is not in ``done``, on LoRAs whose concepts are not held out."""
    rows = sample_rows(dataset, seed, TRAINING_SHARE, *FINAL_SPLITS)
    models, targets = dataset.take(rows), dataset.targets[rows]
    baselines: dict[str, Callable[[], DenseLinear | WeightStatistics | PrincipalWeights]] = {
        "weight statistics": lambda: WeightStatistics.fit(models, targets, seed=seed),
        "dense linear": lambda: DenseLinear.fit(models, targets, *recipes.dense),
        "PCA of weights": lambda: PrincipalWeights.fit(models, targets, *recipes.principal),
    }
    for name, fit_baseline in baselines.items():
        if (name, seed) not in done:
            model = fit_baseline()
            yield name, BaselineEncoder(model, Background.fit(model.encode(models)), dataset.labels)
    for name, config in recipes.experts.items():
        if (name, seed) not in done:
            yield name, fit(dataset, rows, config.with_settings(seed=seed), early_stop=False)
