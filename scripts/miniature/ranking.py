"""Steps ``ranking-a`` and ``ranking-b``: compare ways to rank models for a text, on concepts new to the expert.

The LoRAs of training and validation concepts are cut into four parts by concept. Each part is searched by its concepts'
names, read by an expert that was fitted on the other parts; held-out concepts are not looked at.
"""

import json
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from loradex.retrieval.measure.metrics import average_precision, recall_at_k
from loradex.retrieval.space.calibration import Calibration
from loradex.retrieval.space.likelihood import PRIOR, Likelihood, QuerySpread, search_scores
from loradex.retrieval.training.concept_dataset import TRAINING, VALIDATION, ConceptDataset
from loradex.retrieval.training.fit import fit
from scripts.miniature.fleet_dataset import load_fleet_dataset
from scripts.miniature.recipes import OURS, ChosenRecipes
from scripts.miniature.settings import SEED, Build, atomic, log

PARTS = 4
Ranking = Callable[[Tensor, Tensor, Calibration], Tensor]  # vectors, labels, calibration -> scores (models, labels)


def measure_rankings(build: Build, fleet: str) -> None:
    """Write ``ranking-<fleet>.json``: recall@1 and mean average precision of each ranking, and the fitted line."""
    dataset, values, sizes = load_fleet_dataset(build, fleet)[0], dict[str, list[list[float]]](), list[int]()
    scores, right = [], []
    for vectors, truth, calibration in read_unseen(dataset, ChosenRecipes.load(build, fleet)):
        concepts = np.unique(truth.numpy())
        sizes.append(len(vectors))
        for name, ranking in RANKINGS.items():
            table = ranking(vectors, dataset.labels, calibration)[:, concepts].double().numpy().T
            metrics = [metric(table, concepts, truth.numpy()) for metric in (recall_at_1, average_precision)]
            values.setdefault(name, []).append([float(metric.mean()) for metric in metrics])
        scores.append(by_log_odds(vectors, dataset.labels, calibration)[:, concepts].flatten())
        right.append((truth[:, None] == torch.from_numpy(concepts)).flatten())
    results = {name: np.average(each, axis=0, weights=sizes).tolist() for name, each in values.items()}
    line = fit_line(torch.cat(scores).double(), torch.cat(right).double())
    for name, (recall, precision) in results.items():
        log.info("%s, %d LoRAs, %s: recall@1 %.1f, mAP %.1f", fleet, sum(sizes), name, 100 * recall, 100 * precision)
    log.info("%s: log-odds of a right pair are %.2f times the score, and %.2f", fleet, *line)
    with atomic(build / f"ranking-{fleet}.json") as path:
        path.write_text(json.dumps({"n": sum(sizes), "rankings": results, "line": line}, indent=1))


def read_unseen(dataset: ConceptDataset, recipes: ChosenRecipes) -> Iterator[tuple[Tensor, Tensor, Calibration]]:
    """Yield vectors (n, dim), concepts (n,) and the calibration of the LoRAs of each part."""
    rows = dataset.rows(TRAINING, VALIDATION)
    concepts, inverse = np.unique(dataset.concept[rows].numpy(), return_inverse=True)
    part = (np.random.default_rng(SEED).permutation(len(concepts)) % PARTS)[inverse]
    config = recipes.experts[OURS].with_settings(against_background=True)
    for number in range(PARTS):
        unseen = rows[torch.from_numpy(part == number)]
        fitted = fit(dataset, rows[torch.from_numpy(part != number)], config)
        assert fitted.background is not None
        vectors, truth = fitted.encode(dataset.take(unseen, fitted.model.config.layers)), dataset.concept[unseen]
        yield vectors, truth, Calibration.fit(fitted.background, vectors, dataset.labels, truth)


def recall_at_1(scores: np.ndarray, queries: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """Whether each query's first model is right (queries,)."""
    return recall_at_k(scores, queries, concepts, 1)


def by_cosine(vectors: Tensor, labels: Tensor, calibration: Calibration) -> Tensor:
    """Cosines."""
    return vectors @ labels.mT


def by_log_odds(vectors: Tensor, labels: Tensor, calibration: Calibration) -> Tensor:
    """As Loradex ranks."""
    spread = QuerySpread.of([calibration.background], labels)
    return search_scores(Likelihood.of_expert(calibration, labels), spread, vectors, labels)


def without_query_scale(vectors: Tensor, labels: Tensor, calibration: Calibration) -> Tensor:
    """Log-odds in which the cosines of all queries count alike."""
    likelihood = Likelihood.of_expert(calibration, labels)
    scales, biases = torch.tensor([likelihood.scale_and_bias(vector) for vector in vectors]).T[:, :, None]
    return scales * (vectors @ labels.mT) + biases


def without_spread(vectors: Tensor, labels: Tensor, calibration: Calibration) -> Tensor:
    """A softmax of cosines over the labels, as they are."""
    cosines = vectors @ labels.mT / float(calibration.background.spread(labels).mean()) / calibration.temperature
    return cosines.log_softmax(1)


def with_none_of_these(vectors: Tensor, labels: Tensor, calibration: Calibration) -> Tensor:
    """Z-scores over the temperature, less their log-sum with "none of these" among the labels."""
    return calibration.probabilities(calibration.scores(vectors, labels))[:, :-1].log()


def at_temperature(factor: float) -> Ranking:
    """Log-odds with another temperature than the calibration's."""

    def ranking(vectors: Tensor, labels: Tensor, calibration: Calibration) -> Tensor:
        warmer = Calibration(calibration.background, factor * calibration.temperature, calibration.unknown)
        return by_log_odds(vectors, labels, warmer)

    return ranking


RANKINGS: dict[str, Ranking] = {
    "cosine": by_cosine,
    "log-odds": by_log_odds,
    "log-odds, all queries alike": without_query_scale,
    "log-odds, all texts alike": without_spread,
    'log-odds, with "none of these"': with_none_of_these,
    "log-odds, temperature x 0.7": at_temperature(0.7),
    "log-odds, temperature x 2": at_temperature(2),
    "log-odds, temperature x 4": at_temperature(4),
}


def fit_line(scores: Tensor, right: Tensor) -> tuple[float, float]:
    """Slope and intercept of the log-odds of a right pair by its score, if one pair in ``1 / PRIOR`` were right."""
    share = right.mean()
    weights = torch.where(right > 0, PRIOR / share, (1 - PRIOR) / (1 - share))
    line = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        odds = line[0] * scores + line[1]
        value = torch.nn.functional.binary_cross_entropy_with_logits(odds, right, weights)
        value.backward()
        return float(value.detach())

    optimizer.step(loss)
    slope, intercept = line.detach().tolist()
    assert math.isfinite(slope)
    return slope, intercept
