"""Training objectives of learned probes: match the texts or drawings of concepts, or predict categories."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.probes import ProbeNet


@dataclass(frozen=True, slots=True)
class ProbeTraining:
    """How probes are trained; the defaults are ProbeX's (its official code trains on raw cosines: temperature 1)."""

    epochs: int = 200
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.0
    temperature: float = 1.0  # cosines are divided by it before the softmax
    symmetric: bool = False  # also classify, for each anchor, the models of the batch
    label_smoothing: float = 0.0
    check_every: int = 10  # epochs between two validations
    patience: int = 5  # validations without a better score, after which training stops
    seed: int = 0


class Objective(Protocol):
    """A loss over training models.

    Attributes:
        target_dim: the dimension of the targets, which the net is built for.
    """

    @property
    def target_dim(self) -> int: ...  # noqa: D102

    def __len__(self) -> int:
        """Return the number of training models."""
        ...

    def loss(
        self, net: ProbeNet, batch: Mapping[str, Factors], rows: Tensor, training: ProbeTraining, device: str
    ) -> Tensor:
        """The loss of a batch.

        Args:
            net: in training mode.
            batch: the factors of the models ``rows``, by layer.
            rows: (batch,), the rows of the models in the training set.
            training: with the temperature and similar settings.
            device: of the net and of ``batch``.
        """
        ...


@dataclass(frozen=True, slots=True)
class ContrastiveObjective:
    """Cross-entropy of the cosines between models and the anchors of all concepts.

    Attributes:
        concepts: (models,), rows of ``anchors``.
        anchors: (concepts, variants, dim); each step uses one random variant of each concept.
    """

    concepts: Tensor
    anchors: Tensor

    @property
    def target_dim(self) -> int:
        """The dimension of the anchors."""
        return self.anchors.shape[2]

    def __len__(self) -> int:
        """Return the number of training models."""
        return len(self.concepts)

    def loss(
        self, net: ProbeNet, batch: Mapping[str, Factors], rows: Tensor, training: ProbeTraining, device: str
    ) -> Tensor:
        """See ``Objective``."""
        variant = torch.randint(self.anchors.shape[1], (len(self.anchors),))
        anchors = self.anchors[torch.arange(len(self.anchors)), variant].to(device)
        with mixed_precision(device):
            cosines = net.encode(batch) @ net.encode_text(anchors).T
        return contrastive_loss(cosines.float() / training.temperature, self.concepts[rows].to(device), training)


@dataclass(frozen=True, slots=True)
class CategoryObjective:
    """Binary cross-entropy over all categories (ProbeX, section 5.1).

    Attributes:
        members: (models, categories), whether a model was trained on a category.
    """

    members: Tensor

    @property
    def target_dim(self) -> int:
        """The number of categories."""
        return self.members.shape[1]

    def __len__(self) -> int:
        """Return the number of training models."""
        return len(self.members)

    def loss(
        self, net: ProbeNet, batch: Mapping[str, Factors], rows: Tensor, training: ProbeTraining, device: str
    ) -> Tensor:
        """See ``Objective``."""
        with mixed_precision(device):
            logits = net.predict(batch)
        return F.binary_cross_entropy_with_logits(logits.float(), self.members[rows].float().to(device))


def contrastive_loss(logits: Tensor, concepts: Tensor, training: ProbeTraining) -> Tensor:
    """Cross-entropy of ``logits`` (models, concepts) with the true ``concepts`` (models,).

    If symmetric, it is averaged with the cross-entropy the other way: over the models of the batch, given the concept
    of each.
    """
    loss = F.cross_entropy(logits, concepts, label_smoothing=training.label_smoothing)
    if not training.symmetric:
        return loss
    same_concept = concepts[:, None] == concepts  # (models, models): several may be of one concept
    targets = same_concept.float() / same_concept.sum(1, keepdim=True)
    return (loss + F.cross_entropy(logits.T[concepts], targets)) / 2


def mixed_precision(device: str) -> Any:
    """Return an autocast to bfloat16 where the hardware multiplies it faster, else a context that does nothing."""
    if device.startswith("cuda"):
        supported = torch.cuda.is_bf16_supported()
    else:
        supported = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.partition(":")[0], torch.bfloat16) if supported else nullcontext()
