"""Ridge regression in the dual: one system of the size of the models, however many features they have."""

import torch
from torch import Tensor

MIN_PENALTY = 1e-12  # solvable even if all features are zero


def solve_dual(gram: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """Coefficients C (models, dim) with which ``features.mT @ C`` are the weights of ``fit_ridge``.

    Args:
        gram: (models, models), inner products of the features.
        targets: (models, dim).
        ridge: the penalty, as a multiple of the Gram matrix's mean eigenvalue.
    """
    penalty = (ridge * gram.diagonal().mean()).clamp_min(MIN_PENALTY)
    coefficients: Tensor = torch.linalg.solve(gram + penalty * torch.eye(len(gram)), targets)
    return coefficients


def fit_ridge(features: Tensor, targets: Tensor, ridge: float) -> Tensor:
    """Weights W (features, dim) that minimise |features W - targets|^2 + penalty |W|^2; ``ridge`` as above."""
    return features.mT @ solve_dual(features @ features.mT, targets, ridge)


def principal_outputs(predictions: Tensor, rank: int) -> Tensor:
    """The leading directions (rank, dim) of predictions (models, dim); fewer if they span fewer."""
    return torch.linalg.svd(predictions, full_matrices=False).Vh[:rank]
