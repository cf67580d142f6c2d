"""How much features say of concepts that they were not fitted on: what layers and views are ranked and weighted by."""

import torch
import torch.nn.functional as F
from torch import Tensor

FOLDS = 5
MOST_MODELS = 800  # more say nothing new of a layer, and the cost grows with their cube


def alignment(features: Tensor, targets: Tensor, concepts: Tensor, ridge: float) -> float:
    """The mean cosine between what ridge regression says of models of unseen concepts and their targets, both centred; 0 or less says nothing.

    Each of ``FOLDS`` groups of concepts is left out once. Related to centred kernel alignment (Cortes, Mohri and Rostamizadeh 2012), but cross-validated,
    since the random starts of LoRAs are also alike within a model.

    Args:
        features: (models, n).
        targets: (models, dim).
        concepts: (models,), any integers.
        ridge: the penalty, in mean eigenvalues.
    """
    shuffled = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:MOST_MODELS]
    gram = features[shuffled] @ features[shuffled].mT
    targets, concepts = targets[shuffled], concepts[shuffled]
    _, number = concepts.unique(return_inverse=True)
    cosines = []
    for fold in range(FOLDS):
        left_out = number % FOLDS == fold
        if left_out.all() or not left_out.any():
            continue
        centred, across = centre(gram[~left_out][:, ~left_out], gram[left_out][:, ~left_out])
        mean = targets[~left_out].mean(0)
        penalty = (ridge * centred.diagonal().mean()).clamp_min(1e-12)
        dual = torch.linalg.solve(centred + penalty * torch.eye(len(centred)), targets[~left_out] - mean)
        cosines.append(F.cosine_similarity(across @ dual, targets[left_out] - mean))
    return float(torch.cat(cosines).mean()) if cosines else 0.0


def centre(known: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    """Inner products among known models (n, n), and of new ones with them (m, n), once the mean of the known is taken from all features."""
    mean = known.mean(0)
    level = mean.mean()
    return known - mean - mean[:, None] + level, new - mean - new.mean(1, keepdim=True) + level
