"""The one place where a vector becomes a position: with the scale and bias that make scores of all evidence compare."""

import torch

from loradex.index import Position
from loradex.index.vectors import Vector
from loradex.retrieval.encoder import Encoder


def calibrated(encoder: Encoder, tree: str | None, vector: Vector) -> Position:
    """Return the position of a unit vector (dim,), whose score is the log-odds that the model draws a text.

    Args:
        encoder: with the everyday texts; without any, a score is the cosine.
        tree: the model tree of the expert that made the vector, if one did.
        vector: in the encoder's space.
    """
    likelihoods = encoder.likelihoods
    if not likelihoods:
        return Position(vector)
    likelihood = likelihoods.get(tree, likelihoods[None])
    return Position(vector, *likelihood.scale_and_bias(torch.from_numpy(vector)))
