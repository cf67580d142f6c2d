"""Category experts: each predicts the categories that classifiers of one model tree were trained on."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.probex.batched_factors import LayerFactors, to_float32
from loradex.retrieval.probex.expert import DEFAULT_MAX_DISTANCE, ExpertBase
from loradex.retrieval.probex.probes import ProbeNet
from loradex.retrieval.probex.serialization import (
    Shapes,
    model_from_checkpoint,
    model_to_checkpoint,
    shapes_from_checkpoint,
)
from loradex.retrieval.probex.sketch import SketchRegression

FORMAT: Final = "loradex-categories-1"
FIT_ITERATIONS: Final = 100  # of L-BFGS
OFFSET_PENALTY: Final = 0.1  # weight of the mean squared offset, in models


@dataclass(frozen=True, slots=True)
class PlattScaling:
    """Turns scores into probabilities: log-odds = scale * score + offset (Platt 1999, one scale for all categories).

    Attributes:
        offsets: (categories,).
    """

    scale: float
    offsets: Tensor

    def probabilities(self, scores: Tensor) -> Tensor:
        """Probabilities (models, categories) of scores (models, categories)."""
        return torch.sigmoid(self.scale * scores + self.offsets)

    @classmethod
    def fit(cls, scores: Tensor, members: Tensor) -> "PlattScaling":
        """Fit by least cross-entropy, on models that the scores were not fitted to.

        Args:
            scores: (models, categories).
            members: (models, categories), whether a model was trained on a category.
        """
        log_scale, offsets = torch.zeros(1, requires_grad=True), torch.zeros(scores.shape[1], requires_grad=True)
        scores, truth = scores.clone(), members.float()  # clones leave inference mode
        spread = scores.std().clamp_min(1e-9)
        optimizer = torch.optim.LBFGS([log_scale, offsets], max_iter=FIT_ITERATIONS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            logits = log_scale.exp() * scores / spread + offsets
            penalty = OFFSET_PENALTY * offsets.square().mean() / len(scores)
            loss = F.binary_cross_entropy_with_logits(logits, truth) + penalty
            loss.backward()
            return loss

        optimizer.step(closure)
        return cls(float(log_scale.detach().exp() / spread), offsets.detach())


@dataclass(frozen=True, slots=True)
class CategoryExpert(ExpertBase):
    """Predicts the categories of the classifiers of one model tree.

    Attributes, beside those of ``ExpertBase``:
        categories: their names.
        texts: (categories, dim), the vectors of the names in the space.
        scaling: turns its scores into probabilities.
        max_distance: the relative distance to the base up to which models are read.
    """

    tree: str
    family: str
    space: str
    shapes: Shapes
    model: SketchRegression | ProbeNet
    categories: tuple[str, ...]
    texts: Tensor
    scaling: PlattScaling
    base: str | None = None
    max_distance: float = DEFAULT_MAX_DISTANCE

    @torch.inference_mode()
    def probabilities(self, models: LayerFactors) -> Tensor:
        """Probabilities (models, categories) that a model was trained on a category."""
        device = self.model.device
        scores = self.model.predict({layer: to_float32(factors).to(device) for layer, factors in models.items()})
        return self.scaling.probabilities(scores.float().cpu())

    @torch.inference_mode()
    def encode_factors(self, models: LayerFactors) -> Tensor:
        """Unit vectors (models, dim) in the space."""
        return self.embed_probabilities(self.probabilities(models))

    def embed_probabilities(self, probabilities: Tensor) -> Tensor:
        """Unit vectors (models, dim): the sum of the categories' texts, weighted by (probability - 0.5)."""
        return F.normalize((probabilities - 0.5) @ self.texts, dim=-1)

    def to(self, device: str) -> "CategoryExpert":
        """Return the expert with its model on a device."""
        return replace(self, model=self.model.to(device))

    def save(self, path: Path) -> None:
        """Write a checkpoint, with large tensors in float16.

        Raises:
            CheckpointError: the file cannot be written.
        """
        model_settings, tensors = model_to_checkpoint(self.model)
        tensors |= {"texts": self.texts.half(), "offsets": self.scaling.offsets}
        settings = {name: getattr(self, name) for name in ("tree", "family", "space", "base", "shapes", "categories")}
        settings |= {"scale": self.scaling.scale, "reach": self.max_distance}
        save_checkpoint(path, FORMAT, settings | model_settings, tensors)

    @classmethod
    def load(cls, path: Path) -> "CategoryExpert":
        """Read a checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged or of another format.
        """
        settings, tensors = load_checkpoint(path, FORMAT)
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        try:
            shapes = shapes_from_checkpoint(settings)
            model = model_from_checkpoint(settings, shapes, tensors)
            names, texts = tuple(map(str, settings["categories"])), tensors["texts"]
            scaling = PlattScaling(float(settings["scale"]), tensors["offsets"])
            max_distance = float(settings.get("reach", DEFAULT_MAX_DISTANCE))
            if not 0 < max_distance <= 1:
                raise ValueError(f"a reach of {max_distance}")
            if len(texts) != len(names) or scaling.offsets.shape != (len(names),):
                raise ValueError(f"texts of {len(texts)} categories")
            tree, family, space = (str(settings[name]) for name in ("tree", "family", "space"))
            return cls(tree, family, space, shapes, model, names, texts, scaling, settings["base"], max_distance)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: expected all settings and tensors of an expert, found a gap at {error}; train it again"
            ) from None
