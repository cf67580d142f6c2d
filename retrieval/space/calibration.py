"""How scores of labels become probabilities, with "none of these" among the answers."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]
NONE_SHARE = 0.2  # how often the true label is taken not to be among the candidates
SAME_MEANING = 0.7  # cosine from which a label says about what a query says
TEMPERATURES = torch.logspace(-1, 1, 61)
UNKNOWNS = torch.linspace(-4, 12, 81)


@dataclass(frozen=True, slots=True)
class Background:
    """Where models lie as a whole, which labels are measured against.

    Some words lie near many models (hubs), others near few. A label's score is therefore standardised: how many standard
    deviations nearer to the model it lies than to models in general.

    Attributes:
        mean: (dim,); covariance: (dim, dim), of unit vectors of training models.
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, models: Tensor) -> "Background":
        """The background of training models (n, dim)."""
        return cls(models.mean(0), torch.cov(models.mT))

    def standardise(self, models: Tensor, labels: Tensor) -> Tensor:
        """Scores (models, labels) of unit vectors (models, dim) and (labels, dim)."""
        return (models - self.mean) @ labels.mT / self.spread(labels)

    def spread(self, labels: Tensor) -> Tensor:
        """Standard deviations (labels,) of the training models along labels (labels, dim)."""
        return ((labels @ self.covariance) * labels).sum(1).clamp_min(1e-12).sqrt()


@dataclass(frozen=True, slots=True)
class Calibration:
    """What scores of one expert are worth.

    The probability of label i of N is softmax(score_i / temperature), beside a last candidate "none of these" whose logit is ``unknown`` + log N:
    a longer list holds more labels that are near by chance.
    """

    background: Background
    temperature: float
    unknown: float

    def scores(self, models: Tensor, labels: Tensor) -> Tensor:
        """Standardised scores (models, labels) of unit vectors."""
        return self.background.standardise(models, labels)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities (models, labels + 1) of scores (models, labels); the last is that of "none of these"."""
        return logits(scores, self.temperature, self.unknown).softmax(-1)

    @classmethod
    def fit(cls, background: Background, models: Tensor, labels: Tensor, truth: Tensor) -> "Calibration":
        """Fit on models of concepts that no training model had, by least cross-entropy.

        The true label ``truth`` (models,) is among the candidates but in ``NONE_SHARE`` of the cases; the candidates are all labels, and random tenths of them.
        """
        scores = background.standardise(models, labels)
        cases = [(scores, truth)]
        cases += [some_candidates(scores, truth, seed) for seed in range(5)]
        losses = torch.zeros(len(TEMPERATURES), len(UNKNOWNS))
        for table, right in cases:
            none = UNKNOWNS + math.log(table.shape[1])
            own, without = table.gather(1, right[:, None]), table.scatter(1, right[:, None], float("-inf"))
            for row, temperature in enumerate(TEMPERATURES.tolist()):
                known = torch.logaddexp((table / temperature).logsumexp(1, keepdim=True), none) - own / temperature
                missing = torch.logaddexp((without / temperature).logsumexp(1, keepdim=True), none) - none
                losses[row] += (1 - NONE_SHARE) * known.mean(0) + NONE_SHARE * missing.mean(0)
        row, column = divmod(int(losses.argmin()), len(UNKNOWNS))
        return cls(background, float(TEMPERATURES[row]), float(UNKNOWNS[column]))


@dataclass(frozen=True, slots=True)
class Relevance:
    """How likely models are what a query asks for, and not one of some labels or none of these.

    It stands in the way of every search, so it is NumPy, whose small products begin sooner than torch's.

    Attributes:
        calibration: of the models' expert.
        mean: (dim,); covariance: (dim, dim), of its background.
        spread: (labels,), of the training models along the labels.
        scaled: (dim, labels), the labels over their spreads, so that scores are one product.
    """

    calibration: Calibration
    mean: Array
    covariance: Array
    spread: Array
    scaled: Array

    @classmethod
    def of(cls, calibration: Calibration, labels: Tensor) -> "Relevance":
        """Prepare labels (labels, dim)."""
        background, spread = calibration.background, calibration.background.spread(labels)
        scaled = (labels / spread[:, None]).mT.contiguous()
        return cls(calibration, background.mean.numpy(), background.covariance.numpy(), spread.numpy(), scaled.numpy())

    def of_models(self, models: Array, query: Array) -> Array:
        """Probabilities (models,) for unit vectors (models, dim); labels that say what the query (dim,) says do not compete with it."""
        unit, shifted = query / np.linalg.norm(query), models - self.mean
        products = np.concatenate([shifted, unit[None]]) @ self.scaled
        own = shifted @ unit / max(float(unit @ self.covariance @ unit), 1e-12) ** 0.5
        others = np.where(products[-1] * self.spread >= SAME_MEANING, np.float32("-inf"), products[:-1])
        scores = np.concatenate([own[:, None].astype(np.float32), others], axis=1)
        found: Array = self.calibration.probabilities(torch.from_numpy(scores))[:, 0].numpy()
        return found


def logits(scores: Tensor, temperature: float, unknown: float) -> Tensor:
    """Logits (models, labels + 1), the last that of "none of these"."""
    last = torch.full((len(scores), 1), unknown + math.log(scores.shape[1]))
    return torch.cat([scores / temperature, last], 1)


def some_candidates(scores: Tensor, truth: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """A random tenth of the labels, one list for all models, those of other models' truth among them, and where the truth lies in it."""
    generator = torch.Generator().manual_seed(seed)
    count = max(2, scores.shape[1] // 10)
    drawn = torch.randperm(scores.shape[1], generator=generator)[:count]
    table = torch.cat(
        [scores.gather(1, truth[:, None]), scores[:, drawn].masked_fill(drawn == truth[:, None], float("-inf"))], 1
    )
    return table, torch.zeros_like(truth)
