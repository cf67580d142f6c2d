"""What probes are trained to: the texts or drawings of concepts, or which categories a model was trained on."""

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
    symmetric: bool = False  # also from anchors to the models of a batch
    label_smoothing: float = 0.0
    check_every: int = 10  # epochs between looks at the validation score
    patience: int = 5  # looks without a better score, after which training ends
    seed: int = 0


class Objective(Protocol):
    """What a net is to say of training models.

    Attributes:
        width: the length of what it is compared with.
    """

    @property
    def width(self) -> int: ...  # noqa: D102

    def __len__(self) -> int:
        """The number of training models."""
        ...

    def loss(
        self, net: ProbeNet, batch: Mapping[str, Factors], rows: Tensor, training: ProbeTraining, device: str
    ) -> Tensor:
        """The loss of the training models ``rows``, of which ``batch`` has the factors."""
        ...


@dataclass(frozen=True, slots=True)
class Contrast:
    """Cross-entropy between models and the anchors (classes, variants, width) of their ``concepts`` (models,); each step takes one variant of each class."""

    concepts: Tensor
    anchors: Tensor

    @property
    def width(self) -> int:
        """Of the anchors."""
        return self.anchors.shape[2]

    def __len__(self) -> int:
        """See ``Objective``."""
        return len(self.concepts)

    def loss(
        self, net: ProbeNet, batch: Mapping[str, Factors], rows: Tensor, training: ProbeTraining, device: str
    ) -> Tensor:
        """See ``Objective``."""
        variant = torch.randint(self.anchors.shape[1], (len(self.anchors),))
        with mixed_precision(device):
            cosines = (
                net.encode(batch) @ net.encode_text(self.anchors[torch.arange(len(self.anchors)), variant].to(device)).T
            )
        return contrast(cosines.float() / training.temperature, self.concepts[rows].to(device), training)


@dataclass(frozen=True, slots=True)
class Membership:
    """Binary cross-entropy of each category: ``members`` (models, categories) says which were in a model's training set (ProbeX, section 5.1)."""

    members: Tensor

    @property
    def width(self) -> int:
        """The number of categories."""
        return self.members.shape[1]

    def __len__(self) -> int:
        """See ``Objective``."""
        return len(self.members)

    def loss(
        self, net: ProbeNet, batch: Mapping[str, Factors], rows: Tensor, training: ProbeTraining, device: str
    ) -> Tensor:
        """See ``Objective``."""
        with mixed_precision(device):
            logits = net.predict(batch)
        return F.binary_cross_entropy_with_logits(logits.float(), self.members[rows].float().to(device))


def contrast(logits: Tensor, concepts: Tensor, training: ProbeTraining) -> Tensor:
    """Cross-entropy of ``logits`` (models, classes), if symmetric also of the models of the batch given each of their concepts."""
    loss = F.cross_entropy(logits, concepts, label_smoothing=training.label_smoothing)
    if not training.symmetric:
        return loss
    own = concepts[:, None] == concepts  # (models, models): several may be of one concept
    return (loss + F.cross_entropy(logits.T[concepts], own.float() / own.sum(1, keepdim=True))) / 2


def mixed_precision(device: str) -> Any:
    """Autocast to bfloat16 where the hardware multiplies it faster."""
    if device.startswith("cuda"):
        able = torch.cuda.is_bf16_supported()
    else:
        able = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.partition(":")[0], torch.bfloat16) if able else nullcontext()
