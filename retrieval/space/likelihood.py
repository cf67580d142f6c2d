"""Log-odds that a model draws what a text says, which compare hits of all families and kinds of evidence.

A softmax of scaled cosines over everyday texts ``w`` gives a vector ``v`` a likelihood ``p(q | v)`` of a text ``q``.
The score of ``q`` is that over ``p(q)``, in logarithms, times the odds that a model taken at random draws ``q``:

    SLOPE * (sharpness * scale(q) * (v @ q) - log mean exp(sharpness * (v @ w))) + log(PRIOR / (1 - PRIOR))

``scale(q)`` depends on the query alone (``QuerySpread``), the last terms on ``v`` alone: a zoo stores a scale and a
bias with each vector, and an index answers by one inner product. docs/experiments.md says how form and numbers were
chosen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from loradex.retrieval.space.calibration import Background, Calibration

# Fitted on the miniature's validation concepts.
SLOPE: Final = 1.15
TEMPERATURE: Final = 0.3  # of vectors without a calibrated expert, in standard deviations over the everyday texts
PRIOR: Final = 1 / 250  # that a model taken at random draws a given thing
MIN_SPREAD: Final = 1e-3  # of cosines
SCALE_BOUNDS: Final = (0.5, 2.0)  # of queries


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Turns the vectors of one source, an expert or pictures, into the scales and biases of their scores.

    Attributes:
        texts: (n, dim), unit vectors of everyday texts; of an expert, each over its relative spread among the training
            models, so that texts near which every model lies weigh no more than others.
        sharpness: by which cosines are multiplied; None for ``1 / TEMPERATURE`` standard deviations of the vector's own
            cosines with the texts.
    """

    texts: Tensor
    sharpness: float | None = None

    @classmethod
    def of_expert(cls, calibration: Calibration, texts: Tensor) -> Self:
        """The likelihood of an expert's vectors, by its background and its temperature."""
        spread = calibration.background.spread(texts)
        mean_spread = float(spread.mean())
        return cls(texts * (mean_spread / spread)[:, None], 1 / (mean_spread * calibration.temperature))

    @classmethod
    def of_pictures(cls, texts: Tensor) -> Self:
        """The likelihood of CLIP's vectors of pictures, and of other vectors without a calibration."""
        return cls(texts)

    def scale_and_bias(self, vector: Tensor) -> tuple[float, float]:
        """The scale and the bias of the scores of a unit vector (dim,)."""
        cosines = self.texts @ vector
        sharpness = self.sharpness or 1 / (TEMPERATURE * max(float(cosines.std()), MIN_SPREAD))
        mean_likelihood = float(torch.logsumexp(sharpness * cosines, 0)) - math.log(len(cosines))
        return SLOPE * sharpness, math.log(PRIOR / (1 - PRIOR)) - SLOPE * mean_likelihood


@dataclass(frozen=True, slots=True)
class QuerySpread:
    """How much the cosines of a query vary among models in general.

    Many models lie near some texts (hubs): their cosines are large and vary much, so they tell less.

    Attributes:
        covariance: (dim, dim), of the unit vectors of training models, the mean over the experts.
        of_texts: the mean standard deviation of the cosines of everyday texts.
    """

    covariance: NDArray[np.float32]
    of_texts: float

    @classmethod
    def of(cls, backgrounds: Sequence[Background], texts: Tensor) -> Self:
        """Average the backgrounds of experts, for everyday texts (n, dim)."""
        covariance = torch.stack([background.covariance for background in backgrounds]).mean(0)
        spread = Background(torch.zeros(len(covariance)), covariance).spread(texts)
        return cls(covariance.numpy(), float(spread.mean()))

    def scale(self, query: NDArray[np.floating]) -> float:
        """By how much the cosines of a unit vector (dim,) count, within ``SCALE_BOUNDS``: 1 for an average text."""
        spread = float(np.sqrt(max(float(query @ self.covariance @ query), 0.0)))
        return float(np.clip(self.of_texts / max(spread, MIN_SPREAD), *SCALE_BOUNDS))


def search_scores(likelihood: Likelihood, query_spread: QuerySpread, vectors: Tensor, texts: Tensor) -> Tensor:
    """Scores (n, texts) of unit vectors (n, dim) for the unit vectors of texts (texts, dim), as a zoo gives them."""
    scales, biases = torch.tensor([likelihood.scale_and_bias(vector) for vector in vectors]).T[:, :, None]
    query_scales = torch.tensor([query_spread.scale(text) for text in texts.numpy()])
    return scales * query_scales * (vectors @ texts.mT) + biases


def log_likelihood_ratios(scores: Tensor) -> Tensor:
    """``log p(label | model) - log p(label)`` of scores (models, labels) that a softmax turns into likelihoods."""
    return scores - scores.logsumexp(1, keepdim=True) + math.log(scores.shape[1])


def probability(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probability that each hit (n,) draws what a query says, by their scores (n,), which are log-odds."""
    odds = np.asarray(scores, np.float64)
    probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-odds.clip(-500, 500)))
    return probabilities
