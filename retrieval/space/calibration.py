"""Calibration: scores of labels -> probabilities, with "none of these" among the answers."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NONE_SHARE = 0.2  # assumed share of cases whose true label is not among the candidates
TEMPERATURES = torch.logspace(-1, 1, 61)  # grid of the fit
UNKNOWN_LOGITS = torch.linspace(-4, 12, 81)  # grid of the fit


@dataclass(frozen=True, slots=True)
class Background:
    """Mean and covariance of models in general, against which scores of labels are standardised.

    Some texts lie near many models (hubs), others near few. The score of a label is therefore a z-score: by how many
    standard deviations the label is nearer to this model than to models in general.

    Attributes:
        mean: (dim,), of the unit vectors of training models.
        covariance: (dim, dim), of the same vectors.
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def fit(cls, models: Tensor) -> "Background":
        """Compute the moments of training models (n, dim)."""
        return cls(models.mean(0), torch.cov(models.mT))

    def z_scores(self, models: Tensor, labels: Tensor) -> Tensor:
        """Standardised cosines (models, labels) of unit vectors (models, dim) and (labels, dim)."""
        return (models - self.mean) @ labels.mT / self.spread(labels)

    def spread(self, labels: Tensor) -> Tensor:
        """Standard deviations (labels,) of the training models along labels (labels, dim)."""
        return ((labels @ self.covariance) * labels).sum(1).clamp_min(1e-12).sqrt()


@dataclass(frozen=True, slots=True)
class Calibration:
    """Turns the scores of one expert into probabilities.

    The probability of label i of N is softmax(score_i / temperature), with one more candidate "none of these", whose
    logit is ``unknown`` + log N: a longer list has more labels that are near by chance.
    """

    background: Background
    temperature: float
    unknown: float

    def scores(self, models: Tensor, labels: Tensor) -> Tensor:
        """Z-scores (models, labels) of unit vectors (models, dim) and (labels, dim)."""
        return self.background.z_scores(models, labels)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities (models, labels + 1) of scores (models, labels); the last is that of "none of these"."""
        return logits(scores, self.temperature, self.unknown).softmax(-1)

    @classmethod
    def fit(cls, background: Background, models: Tensor, labels: Tensor, truth: Tensor) -> "Calibration":
        """Fit temperature and ``unknown`` by least cross-entropy, on models of concepts that no training model has.

        The candidates are all labels, and five random tenths of them. The true label is taken to be missing in
        ``NONE_SHARE`` of the cases.

        Args:
            background: of the training models.
            models: (models, dim), unit vectors.
            labels: (labels, dim), unit vectors.
            truth: (models,), the row of each model's true label.
        """
        scores = background.z_scores(models, labels)
        tables = [(scores, truth)]
        tables += [sample_candidates(scores, truth, seed) for seed in range(5)]
        losses = torch.zeros(len(TEMPERATURES), len(UNKNOWN_LOGITS))
        for table, true in tables:
            none = UNKNOWN_LOGITS + math.log(table.shape[1])
            of_truth, without = table.gather(1, true[:, None]), table.scatter(1, true[:, None], float("-inf"))
            for row, temperature in enumerate(TEMPERATURES.tolist()):
                present = (
                    torch.logaddexp((table / temperature).logsumexp(1, keepdim=True), none) - of_truth / temperature
                )
                missing = torch.logaddexp((without / temperature).logsumexp(1, keepdim=True), none) - none
                losses[row] += (1 - NONE_SHARE) * present.mean(0) + NONE_SHARE * missing.mean(0)
        row, column = divmod(int(losses.argmin()), len(UNKNOWN_LOGITS))
        return cls(background, float(TEMPERATURES[row]), float(UNKNOWN_LOGITS[column]))


def logits(scores: Tensor, temperature: float, unknown: float) -> Tensor:
    """Logits (models, labels + 1) of scores (models, labels); the last is that of "none of these"."""
    last = torch.full((len(scores), 1), unknown + math.log(scores.shape[1]))
    return torch.cat([scores / temperature, last], 1)


def sample_candidates(scores: Tensor, truth: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Scores (models, 1 + labels / 10) of each model's true label and of a random tenth of the labels.

    The tenth is the same for all models; a model's true label in it is masked. Also returns the column of the true
    labels (models,), which is 0.
    """
    generator = torch.Generator().manual_seed(seed)
    count = max(2, scores.shape[1] // 10)
    sampled = torch.randperm(scores.shape[1], generator=generator)[:count]
    others = scores[:, sampled].masked_fill(sampled == truth[:, None], float("-inf"))
    return torch.cat([scores.gather(1, truth[:, None]), others], 1), torch.zeros_like(truth)
