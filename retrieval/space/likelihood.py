"""Log-odds that a model draws what a text says: the scale on which hits of all families and kinds of evidence compare.

A softmax of scaled cosines over everyday texts ``w`` gives a vector ``v`` a likelihood ``p(q | v)`` of a text ``q``. The
score of ``q`` is a straight line of ``log p(q | v) - log p(q)``, fitted to how often hits are right:

    slope * (sharpness * (v @ q) - log mean exp(sharpness * (v @ w))) + intercept

All but the cosine depends on ``v`` alone, so a zoo stores a scale and a bias with each vector, and an index answers by
one inner product. How this form and its numbers were chosen is in docs/experiments.md.
"""

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loradex.retrieval.space.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Line:
    """The log-odds of a hit as a line of its log-likelihood ratio."""

    slope: float
    intercept: float


# Fitted on hits of the miniature's validation concepts.
EXPERT_LINE: Final = Line(0.7, -2.8)
PICTURES_LINE: Final = Line(1.1, -3.2)
TEMPERATURE: Final = 0.3  # of vectors without a calibrated expert, in standard deviations over the everyday texts
MIN_SPREAD: Final = 1e-3  # of the cosines of a vector with everyday texts


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Turns the vectors of one source, an expert or pictures, into the scales and biases of their scores.

    Attributes:
        texts: (n, dim), unit vectors of everyday texts; of an expert, each over its relative spread among the training
            models, so that texts near which every model lies weigh no more than others.
        line: of the source.
        sharpness: by which cosines are multiplied; None for ``1 / TEMPERATURE`` standard deviations of the vector's own
            cosines with the texts.
    """

    texts: Tensor
    line: Line
    sharpness: float | None = None

    @classmethod
    def of_expert(cls, calibration: Calibration, texts: Tensor) -> Self:
        """The likelihood of an expert's vectors, by its background and its temperature."""
        spread = calibration.background.spread(texts)
        mean_spread = float(spread.mean())
        sharpness = 1 / (mean_spread * calibration.temperature)
        return cls(texts * (mean_spread / spread)[:, None], EXPERT_LINE, sharpness)

    @classmethod
    def of_pictures(cls, texts: Tensor) -> Self:
        """The likelihood of CLIP's vectors of pictures, and of other vectors without a calibration."""
        return cls(texts, PICTURES_LINE)

    def scale_and_bias(self, vector: Tensor) -> tuple[float, float]:
        """The scale and the bias of the scores of a unit vector (dim,)."""
        cosines = self.texts @ vector
        sharpness = self.sharpness or 1 / (TEMPERATURE * max(float(cosines.std()), MIN_SPREAD))
        mean_likelihood = float(torch.logsumexp(sharpness * cosines, 0)) - math.log(len(cosines))
        return self.line.slope * sharpness, self.line.intercept - self.line.slope * mean_likelihood

    def scores(self, vectors: Tensor, texts: Tensor) -> Tensor:
        """Scores (n, texts) of unit vectors (n, dim) for the unit vectors of texts (texts, dim)."""
        scales, biases = torch.tensor([self.scale_and_bias(vector) for vector in vectors]).T[:, :, None]
        return scales * (vectors @ texts.mT) + biases


def log_likelihood_ratios(scores: Tensor) -> Tensor:
    """``log p(label | model) - log p(label)`` of scores (models, labels) that a softmax turns into likelihoods."""
    return scores - scores.logsumexp(1, keepdim=True) + math.log(scores.shape[1])


def probability(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probability that each hit (n,) draws what a query says, by their scores (n,), which are log-odds."""
    odds = np.asarray(scores, np.float64)
    probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-odds.clip(-500, 500)))
    return probabilities
