"""What tells the categories that a whole model was trained on, and its self-describing checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.probex.batched_factors import Factors, widen
from loradex.retrieval.probex.expert import NEAR, Shapes, TreeReader, model_of, parts_of, shapes_of
from loradex.retrieval.probex.probes import ProbeNet
from loradex.retrieval.probex.sketch import SketchExpert

FORMAT: Final = "loradex-categories-1"
ROUNDS: Final = 100  # of fitting a calibration
PULL: Final = 0.1  # of each category's offset towards none, in models


@dataclass(frozen=True, slots=True)
class Odds:
    """What scores are worth: the log-odds of a category are ``scale`` times its score and its ``offset`` (Platt 1999, with one scale for all categories).

    Attributes:
        offsets: (categories,).
    """

    scale: float
    offsets: Tensor

    def probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities (models, categories) of scores (models, categories)."""
        return torch.sigmoid(self.scale * scores + self.offsets)

    @classmethod
    def fit(cls, scores: Tensor, members: Tensor) -> "Odds":
        """Fit on models that no training saw, by least cross-entropy; ``members`` (models, categories) says what is true."""
        scale, offsets = torch.zeros(1, requires_grad=True), torch.zeros(scores.shape[1], requires_grad=True)
        scores, truth = scores.clone(), members.float()  # out of inference mode
        spread = scores.std().clamp_min(1e-9)
        optimizer = torch.optim.LBFGS([scale, offsets], max_iter=ROUNDS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            found = F.binary_cross_entropy_with_logits(
                scale.exp() * scores / spread + offsets, truth
            ) + PULL * offsets.square().mean() / len(scores)
            found.backward()
            return found

        optimizer.step(loss)
        return cls(float(scale.detach().exp() / spread), offsets.detach())


@dataclass(frozen=True, slots=True)
class CategoryExpert(TreeReader):
    """An expert of one tree of whole models; see ``TreeReader``.

    Attributes:
        categories: their names.
        texts: (categories, dim), the names placed in the space.
        odds: what its scores are worth.
        farthest: how far from the base models may lie, relative to its length.
    """

    tree: str
    family: str
    space: str
    shapes: Shapes
    model: SketchExpert | ProbeNet
    categories: tuple[str, ...]
    texts: Tensor
    odds: Odds
    base: str | None = None
    farthest: float = NEAR

    @property
    def reach(self) -> float:
        """See ``TreeReader``."""
        return self.farthest

    @torch.inference_mode()
    def probabilities(self, models: Mapping[str, Factors]) -> Tensor:
        """How likely each category was in the training set of each model (models, categories)."""
        scores = (
            self.model.predict({layer: widen(factors).to(self.model.device) for layer, factors in models.items()})
            .float()
            .cpu()
        )
        return self.odds.probabilities(scores)

    @torch.inference_mode()
    def encode_factors(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit vectors (models, dim) in the space."""
        return self.place(self.probabilities(models))

    def place(self, probabilities: Tensor) -> Tensor:
        """Unit vectors (models, dim) of probabilities (models, categories): the texts of the likely categories less those of the unlikely ones."""
        return F.normalize((probabilities - 0.5) @ self.texts, dim=-1)

    def on(self, device: str) -> "CategoryExpert":
        """The same expert, which reads on a device."""
        return replace(self, model=self.model.to(device))

    def save(self, path: Path) -> None:
        """Write the checkpoint; large tensors in half precision."""
        own, tensors = parts_of(self.model)
        tensors |= {"texts": self.texts.half(), "offsets": self.odds.offsets}
        named = {name: getattr(self, name) for name in ("tree", "family", "space", "base", "shapes", "categories")}
        save_checkpoint(path, FORMAT, named | {"scale": self.odds.scale, "reach": self.farthest} | own, tensors)

    @classmethod
    def load(cls, path: Path) -> "CategoryExpert":
        """Read a checkpoint.

        Raises:
            CheckpointError: it is missing, damaged or of another format.
        """
        settings, tensors = load_checkpoint(path, FORMAT)
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        try:
            shapes = shapes_of(settings)
            model, names = model_of(settings, shapes, tensors), tuple(map(str, settings["categories"]))
            odds = Odds(float(settings["scale"]), tensors["offsets"])
            reach = float(settings.get("reach", NEAR))
            if not 0 < reach <= 1:
                raise ValueError(f"a reach of {reach}")
            if len(tensors["texts"]) != len(names) or odds.offsets.shape != (len(names),):
                raise ValueError(f"texts of {len(tensors['texts'])} categories")
            tree, family, space = (str(settings[name]) for name in ("tree", "family", "space"))
            return cls(tree, family, space, shapes, model, names, tensors["texts"], odds, settings["base"], reach)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: expected all settings and tensors of an expert, found a gap at {error}; train it again"
            ) from None
