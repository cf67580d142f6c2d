"""Learned probes in factor form: ProbeX and MVProbe as published, and both over several layers.

With X for dW (out x in) and probes U, a view is a thin product L K with L (side, rank) and K (rank, probes):

    X U      as  up     (down U)              ProbeX (Horwitz et al., CVPR 2025, equations 4 to 6)
    X X^T U  as  up     (down down^T up^T U)  this and the next two: MVProbe (ICML 2026, section 4)
    X^T U    as  down^T (up^T U)
    X^T X U  as  down^T (up^T up down U)

so that neither X nor the responses of all its rows are computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loradex.retrieval.probex.batched_factors import Factors, Products

EPSILON = 1e-8  # added to standard deviations, as in MVProbe


class View(StrEnum):
    """What is multiplied with the probes U."""

    XU = "xu"
    XXTU = "xxtu"
    XTU = "xtu"
    XTXU = "xtxu"

    @property
    def from_inputs(self) -> bool:
        """Whether the probes have the length of the inputs (in), rather than of the outputs (out)."""
        return self in (View.XU, View.XTXU)

    @property
    def of_outputs(self) -> bool:
        """Whether the responses have the length of the outputs, rather than of the inputs."""
        return self in (View.XU, View.XXTU)

    def product(self, factors: Factors, probes: Tensor) -> tuple[Tensor, Tensor]:
        """L (models, side, rank) and K (models, rank, probes)."""
        if isinstance(factors, Products):
            return self.dense_product(factors, probes), torch.eye(probes.shape[1]).to(probes).expand(
                len(factors), -1, -1
            )
        up, down = factors.up, factors.down
        if self is View.XU:
            return up, down @ probes
        if self is View.XXTU:
            return up, (down @ down.mT) @ (up.mT @ probes)
        if self is View.XTU:
            return down.mT, up.mT @ probes
        return down.mT, (up.mT @ up) @ (down @ probes)

    def dense_product(self, products: Products, probes: Tensor) -> Tensor:
        """L K (models, side, probes) of updates that have no small factors."""
        if self is View.XU:
            return products.times(probes)
        if self is View.XTU:
            return products.transposed_times(probes)
        if self is View.XXTU:
            return torch.stack([update.times(update.transposed_times(probes)) for update in products.updates])
        return torch.stack([update.transposed_times(update.times(probes)) for update in products.updates])


ALL_VIEWS = tuple(View)


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """The shape of a net of probes; the defaults are ProbeX's, for one layer."""

    layers: tuple[str, ...]
    views: tuple[View, ...] = (View.XU,)
    probes: int = 128  # r_U
    projection: int = 128  # r_V
    representation: int = 512  # r_T
    standardise: bool = False  # the responses of each model and view, to mean 0 and deviation 1, as MVProbe does
    text_projection: bool = True  # learn a linear map of texts; without it the representation is a vector of the space
    layer_dropout: float = 0.0  # share of layers left out of a training step
    categories: int = 0  # if not 0, predict so many categories instead of a vector of the space


class ViewProbe(nn.Module):
    """Probes of one view of one layer: relu(V S), with S the responses (side, r_U) and V the projection (r_V, side)."""

    def __init__(self, view: View, shape: tuple[int, int], config: ProbeConfig) -> None:
        """Draw initial values as torch.nn.Linear does, like the official codes; ``shape`` is (out, in)."""
        super().__init__()
        out, width = shape
        self.view, self.standardise = view, config.standardise
        self.probes = nn.Parameter(uniform((width if view.from_inputs else out, config.probes), config.probes))
        side = out if view.of_outputs else width
        self.projection = nn.Parameter(uniform((config.projection, side), side))

    def forward(self, factors: Factors) -> Tensor:
        """Features (models, r_U * r_V)."""
        left, right = self.view.product(factors, self.probes)
        responses = (self.projection @ left) @ right  # (models, r_V, r_U)
        if self.standardise:
            mean, deviation = moments(left, right)
            responses = (responses - mean * self.projection.sum(1)[:, None]) / (deviation + EPSILON)
        return responses.relu().mT.flatten(1)


def moments(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sample deviation (models, 1, 1) of all entries of left @ right, without computing that product."""
    left, right = left.float(), right.float()
    count = left.shape[1] * right.shape[2]
    mean = (left.sum(1) * right.sum(2)).sum(1) / count
    squares = ((left.mT @ left) * (right @ right.mT)).sum((1, 2))
    variance = (squares - count * mean.square()).clamp_min(0) / (count - 1)
    return mean[:, None, None], variance.sqrt()[:, None, None]


class LayerProbe(nn.Module):
    """All views of one layer, and a linear encoder of their features."""

    def __init__(self, shape: tuple[int, int], config: ProbeConfig) -> None:
        """Create one ``ViewProbe`` for each view; ``shape`` is (out, in)."""
        super().__init__()
        self.views = nn.ModuleList(ViewProbe(view, shape, config) for view in config.views)
        self.encoder = nn.Linear(len(config.views) * config.probes * config.projection, config.representation)

    def forward(self, factors: Factors) -> Tensor:
        """Representations (models, r_T)."""
        return self.encoder(torch.cat([view(factors) for view in self.views], 1))


class ProbeNet(nn.Module):
    """Maps updates to representations that are compared with texts by cosine; those of several layers are added."""

    def __init__(self, shapes: Mapping[str, tuple[int, int]], text_dim: int, config: ProbeConfig) -> None:
        """Create a ``LayerProbe`` for each layer of ``config``.

        Args:
            shapes: (out, in) of each layer.
            text_dim: the dimension of text vectors, for the text projection.
            config: of the net.
        """
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(LayerProbe(shapes[layer], config) for layer in config.layers)
        self.text_projection = nn.Linear(text_dim, config.representation) if config.text_projection else nn.Identity()
        self.head = nn.Linear(config.representation, config.categories) if config.categories else nn.Identity()

    @property
    def device(self) -> str:
        """The device of the weights."""
        return str(next(self.parameters()).device)

    def represent(self, models: Mapping[str, Factors]) -> Tensor:
        """Representations (models, r_T), not normalised."""
        kept: Sequence[int] = range(len(self.layers))
        if self.training and self.config.layer_dropout:
            kept = [i for i in kept if torch.rand(()) >= self.config.layer_dropout] or [
                int(torch.randint(len(self.layers), ()))
            ]
        return torch.stack([self.layers[i](models[self.config.layers[i]]) for i in kept]).sum(0)

    def predict(self, models: Mapping[str, Factors]) -> Tensor:
        """Logits (models, categories); without categories, the representations."""
        logits: Tensor = self.head(self.represent(models))
        return logits

    def encode(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit representations (models, r_T)."""
        return F.normalize(self.represent(models).float(), dim=-1)

    def encode_text(self, vectors: Tensor) -> Tensor:
        """Unit representations (texts, r_T) of CLIP's text vectors, or of vectors of the space."""
        return F.normalize(self.text_projection(vectors).float(), dim=-1)


def uniform(shape: tuple[int, int], fan_in: int) -> Tensor:
    """Uniform values within 1/sqrt(fan_in), as torch.nn.Linear is initialised with."""
    return torch.empty(shape).uniform_(-(fan_in**-0.5), fan_in**-0.5)
