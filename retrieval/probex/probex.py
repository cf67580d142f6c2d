"""ProbeX in factor form (Horwitz et al., CVPR 2025, equations 4 to 6), over one layer or the sum of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrieval.probex.probing import Factors, bilinear


@dataclass(frozen=True, slots=True)
class ProbeXConfig:
    """The shape of a ProbeX; the paper uses one layer, 128 probes, projections of 128, representations of 512."""

    layers: tuple[str, ...]
    probes: int = 128  # r_U
    projection: int = 128  # r_V
    representation: int = 512  # r_T
    layer_dropout: float = 0.0  # the share of layers left out of a training step


class LayerProbe(nn.Module):
    """Probes of one layer: relu(V dW U) and a linear encoder of all responses."""

    def __init__(self, shape: tuple[int, int], config: ProbeXConfig) -> None:
        """Initial values as torch.nn.Linear draws them, which is what the official code does; ``shape`` is (out, in)."""
        super().__init__()
        rows, columns = shape
        self.probes = nn.Parameter(uniform((columns, config.probes), config.probes))
        self.projection = nn.Parameter(uniform((config.projection, rows), rows))
        self.encoders = nn.Linear(config.probes * config.projection, config.representation)
        self.gain: Tensor
        self.register_buffer("gain", torch.ones(()))  # brings responses to order one; 1 as published

    def forward(self, factors: Factors) -> Tensor:
        """Representations (models, r_T)."""
        responses = bilinear(factors, self.projection, self.probes) * self.gain  # (models, r_V, r_U)
        return self.encoders(responses.relu().mT.flatten(1))


class ProbeX(nn.Module):
    """Maps updates and text vectors into one space, where they are compared by cosine."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]], text_dim: int, config: ProbeXConfig) -> None:
        """Make a probe for each layer of ``config`` and a linear text projection."""
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(LayerProbe(shapes[layer], config) for layer in config.layers)
        self.text_projection = nn.Linear(text_dim, config.representation)

    def encode(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit representations (models, r_T)."""
        kept: Sequence[int] = range(len(self.layers))
        if self.training and self.config.layer_dropout:
            kept = [i for i in kept if torch.rand(()) >= self.config.layer_dropout] or [int(torch.randint(len(self.layers), ()))]
        parts = [self.layers[i](models[self.config.layers[i]]) for i in kept]
        return F.normalize(torch.stack(parts).sum(0), dim=-1)

    def encode_text(self, vectors: Tensor) -> Tensor:
        """Unit representations (texts, r_T) of CLIP's text vectors."""
        return F.normalize(self.text_projection(vectors), dim=-1)


def uniform(shape: tuple[int, int], fan: int) -> Tensor:
    """Values within 1/sqrt(fan), as torch.nn.Linear with ``fan`` inputs begins."""
    return torch.empty(shape).uniform_(-(fan**-0.5), fan**-0.5)
