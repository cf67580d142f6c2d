"""Alignment of features with targets: a cross-validated score by which layers and views are ranked and weighted."""

import torch
import torch.nn.functional as F
from torch import Tensor

FOLDS = 5
MAX_MODELS = 800  # more add nothing to the score of a layer, and the cost grows with their cube


def alignment(features: Tensor, targets: Tensor, concepts: Tensor, ridge: float) -> float:
    """Mean cosine between the targets of models of unseen concepts and their predictions by ridge regression.

    Both are centred; 0 or less means that the features predict nothing. Each of ``FOLDS`` groups of concepts is left
    out once. The score is related to centred kernel alignment (Cortes, Mohri and Rostamizadeh 2012), but
    cross-validated, since the random initial values of a LoRA are also alike within a model.

    Args:
        features: (models, n).
        targets: (models, dim).
        concepts: (models,), any integers.
        ridge: the penalty, as a multiple of the Gram matrix's mean eigenvalue.
    """
    sample = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:MAX_MODELS]
    gram = features[sample] @ features[sample].mT
    targets, concepts = targets[sample], concepts[sample]
    _, concept_number = concepts.unique(return_inverse=True)
    cosines = []
    for fold in range(FOLDS):
        left_out = concept_number % FOLDS == fold
        if left_out.all() or not left_out.any():
            continue
        train_gram, cross_gram = centre_gram(gram[~left_out][:, ~left_out], gram[left_out][:, ~left_out])
        mean = targets[~left_out].mean(0)
        penalty = (ridge * train_gram.diagonal().mean()).clamp_min(1e-12)
        dual = torch.linalg.solve(train_gram + penalty * torch.eye(len(train_gram)), targets[~left_out] - mean)
        cosines.append(F.cosine_similarity(cross_gram @ dual, targets[left_out] - mean))
    return float(torch.cat(cosines).mean()) if cosines else 0.0


def centre_gram(train: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """Inner products after the mean of the training features is subtracted from all features.

    Args:
        train: (n, n), inner products of the training models.
        cross: (m, n), inner products of other models with the training models.
    """
    mean = train.mean(0)
    level = mean.mean()
    return train - mean - mean[:, None] + level, cross - mean - cross.mean(1, keepdim=True) + level
