"""How likely the updates of a LoRA are, if it was trained with a prompt.

The gradient of a layer of keys or values is ``G S``: the states S (positions, width) of the prompt, each times what the
layer does with it. So rows of the update dW lie near the span of the prompt's states, beside what the random start of
the factors leaves there. With a Gaussian G that nobody knows, rows of dW are Gaussian with covariance

    I + STRENGTH * width / (POSITIONS * mean |s|² over common texts) * Sᵀ S

times a scale that is profiled out, down to a floor. The score of a prompt is the logarithm of that likelihood over the
one without any prompt, summed over layers. Rows of a layer are far from independent, so all of them count as one. No
other LoRA is needed: the determinant is what a long state has to pay for lying near every update. docs/experiments.md
compares this with plain energies ``|dW s|²`` and other nulls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

STRENGTH: Final = 0.2  # chosen on the miniature's validation concepts
POSITIONS: Final = 8  # of a short prompt, behind the start, that are compared
MIN_SHARED: Final = 1 / 20  # of the longest direction
MIN_LENGTH: Final = 1e-6
AT_ONCE: Final = 4096  # prompts
FLOOR: Final = 0.05  # of a layer, that no prompt explains: optimizers do not follow the gradient exactly


@dataclass(frozen=True, slots=True)
class CommonStates:
    """What the states of all texts share, which says nothing of a word and is taken out of states and updates alike.

    Attributes:
        means: (positions, width), of the states at each position behind the start.
        shared: (directions, width), orthonormal: those in which the start's state and the means mostly lie.
        length: mean squared length of what remains of a state.
    """

    means: Tensor
    shared: Tensor
    length: float

    @classmethod
    def of(cls, states: Tensor) -> Self:
        """Average the states of common texts (n, 1 + positions, width), the start's first."""
        means = states.mean(0)
        _, lengths, directions = torch.linalg.svd(means, full_matrices=False)
        shared = directions[lengths > MIN_SHARED * lengths[0]]
        common = cls(means[1:], shared, 1.0)
        return cls(means[1:], shared, float(common.centred(states[:, 1:]).square().sum(-1).mean()))

    def centred(self, states: Tensor, first: int = 0) -> Tensor:
        """What is a text's own in its states (n, positions, width), of which the first is number ``first``."""
        return self.without_shared(states - self.means[first : first + states.shape[1]])

    def without_shared(self, rows: Tensor) -> Tensor:
        """Rows (..., width) less their part in the shared directions."""
        return rows - (rows @ self.shared.mT) @ self.shared

    def own_layers(self, layers: Sequence[Tensor]) -> list[Tensor]:
        """Row spaces (rank, width) of a LoRA's layers without what all texts share, at length 1 each."""
        own = [self.without_shared(rows) for rows in layers]
        return [rows / rows.norm().clamp(min=MIN_LENGTH) for rows in own]

    def scores(self, layers: Sequence[Tensor], states: Tensor) -> Tensor:
        """Scores (n,) of prompts by the row spaces of a LoRA's layers, 0 for what says nothing.

        Args:
            layers: of shape (rank, width) and length 1 each, as ``own_layers`` gives them.
            states: (n, positions, width), centred; shorter prompts may be filled up with zeros, which add nothing.
        """
        return torch.cat([self._scores(layers, part.float()) for part in states.split(AT_ONCE)])

    def _scores(self, layers: Sequence[Tensor], states: Tensor) -> Tensor:
        strength = self._strength(states.shape[-1])
        roots = torch.linalg.cholesky(torch.eye(states.shape[1]) + strength * states @ states.mT)
        inverses = torch.linalg.solve_triangular(roots, torch.eye(states.shape[1]).expand_as(roots), upper=False)
        explained = strength * energies(layers, (inverses @ states).flatten(0, 1))
        explained = explained.unflatten(0, states.shape[:2]).sum(1)
        determinants = len(layers) * roots.diagonal(dim1=1, dim2=2).log().sum(1)
        return gain(explained, states.shape[-1]).sum(1) - determinants

    def quick_scores(self, layers: Sequence[Tensor], states: Tensor, found: Tensor | None = None) -> Tensor:
        """Scores (n,) of single centred states (n, width), by one product with all layers.

        With states (positions, width) that were ``found``, what a further state adds to them: two words that share
        their states share what they explain.
        """
        states, width = states.float(), states.shape[-1]
        strength = self._strength(width)
        rows, inner = torch.cat(list(layers)), states
        totals = [1.0] * len(layers)
        if found is not None:
            root = torch.linalg.cholesky(torch.eye(len(found)) + strength * found @ found.mT)
            basis = torch.linalg.solve_triangular(root, found, upper=False) * strength**0.5  # (positions, width)
            inner = states - (states @ basis.mT) @ basis
            mapped = rows @ basis.mT
            parts = mapped.square().sum(1).split([len(layer) for layer in layers])
            totals = [1 - float(part.sum()) for part in parts]
            rows = rows - mapped @ basis
        added = 1 + strength * torch.linalg.vecdot(inner, states).clamp(min=0)
        explained = energies(rows.split([len(layer) for layer in layers]), states) * (strength / added)[:, None]
        return gain(explained, width, torch.tensor(totals)).sum(1) - added.log() * (len(layers) / 2)

    def _strength(self, width: int) -> float:
        return STRENGTH * width / (POSITIONS * self.length)


def energies(layers: Sequence[Tensor], states: Tensor) -> Tensor:
    """``|rows s|²`` (n, layers) of states (n, width) for the row spaces of layers, by two products."""
    rows = torch.cat(list(layers))
    of_layer = torch.zeros(len(rows), len(layers))
    of_layer[
        torch.arange(len(rows)), torch.arange(len(layers)).repeat_interleave(torch.tensor(list(map(len, layers))))
    ] = 1
    return (states @ rows.mT).square_() @ of_layer


def gain(explained: Tensor, width: int, total: Tensor | float = 1.0) -> Tensor:
    """What prompts add to the likelihood of layers (n, layers), by what they explain of the unexplained ``total``."""
    return torch.log1p(-(explained / (total + FLOOR)).clamp(max=1 - 1e-6)) * (-width / 2)
