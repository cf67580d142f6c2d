"""Experts: each maps the LoRAs of one model tree to vectors of a space; with their checkpoints."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.probex.batched_factors import Factors, LayerFactors, stack_layers, to_float32
from loradex.retrieval.probex.familiarity import Familiarity
from loradex.retrieval.probex.probes import ProbeNet
from loradex.retrieval.probex.provenance import Provenance
from loradex.retrieval.probex.serialization import (
    Shapes,
    model_from_checkpoint,
    model_to_checkpoint,
    shapes_from_checkpoint,
)
from loradex.retrieval.probex.sketch import SketchRegression
from loradex.retrieval.space.calibration import Background, Calibration

FORMAT: Final = "loradex-expert-2"
DEFAULT_MAX_DISTANCE: Final = 0.5  # |W - W0| / |W0| of a full model; another base model lies at more than 1
MIN_ALIGNMENT_SHARE: Final = 0.5  # of the summed alignment of a closed form's layers, which a file's layers must have


class ExpertBase:
    """What ``Expert`` and ``CategoryExpert`` have in common: which layers they read, and of which files.

    Attributes:
        tree: the name of the model tree whose models it reads.
        family: the family of that tree; several trees may be of one family.
        space: the name of the space that it maps into.
        shapes: (out, in) of each layer that it reads.
        model: a closed form, or learned probes.
        base: the file of the base model's weights, relative to the encoder's folder, if there is one; full models are
            read as their difference to it.
    """

    __slots__ = ()
    tree: str
    family: str
    space: str
    shapes: Shapes
    model: SketchRegression | ProbeNet
    base: str | None

    @property
    def max_distance(self) -> float:
        """The relative distance to the base up to which full models are read."""
        return DEFAULT_MAX_DISTANCE

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it reads, in the order of its config."""
        return self.model.config.layers

    def readable_layers(self, file: WeightsFile) -> list[str]:
        """The layers of a file that it reads, in the right shape; none if they are not enough or of another family."""
        shapes = file.shapes
        present = [layer for layer in self.layers if shapes.get(layer) == self.shapes[layer]]
        return present if file.family == self.family and self.has_enough_layers(present) else []

    def has_enough_layers(self, layers: Collection[str]) -> bool:
        """Whether some of its layers are enough to read a model.

        Learned probes need all layers; a closed form needs ``MIN_ALIGNMENT_SHARE`` of the alignment of its layers.
        """
        if isinstance(self.model, SketchRegression):
            alignment = self.model.alignment
            return sum(alignment[layer] for layer in layers) >= MIN_ALIGNMENT_SHARE * sum(alignment.values())
        return len(layers) == len(self.layers)

    def read_layers(self, files: Sequence[WeightsFile]) -> dict[str, Factors]:
        """Read from files the layers that the first one has for it, and only their bytes.

        Raises:
            FileCorrupt: the weights cannot be used.
        """
        layers = self.readable_layers(files[0])
        return stack_layers([file.updates(layers) for file in files], layers)


@dataclass(frozen=True, slots=True)
class Expert(ExpertBase):
    """Maps LoRAs of one model tree to vectors of a space.

    Attributes, beside those of ``ExpertBase``:
        calibration: turns its scores of labels into probabilities.
        familiarity: separates LoRAs of its tree from those of other trees with the same layers.
        provenance: how it was made; None if its checkpoint does not say.
    """

    tree: str
    family: str
    space: str
    shapes: Shapes
    model: SketchRegression | ProbeNet
    calibration: Calibration
    familiarity: Familiarity
    base: str | None = None
    provenance: Provenance | None = None

    @torch.inference_mode()
    def encode_factors(self, models: LayerFactors) -> Tensor:
        """Unit vectors (models, dim) in the space."""
        device = self.model.device
        return self.model.encode({layer: to_float32(factors).to(device) for layer, factors in models.items()}).cpu()

    def to(self, device: str) -> "Expert":
        """Return the expert with its model on a device; ``familiarity`` stays where it is."""
        return replace(self, model=self.model.to(device))

    def save(self, path: Path) -> None:
        """Write a checkpoint, with large tensors in float16.

        Raises:
            CheckpointError: the file cannot be written.
        """
        model_settings, tensors = model_to_checkpoint(self.model)
        background = self.calibration.background
        tensors |= {"background.mean": background.mean, "background.covariance": background.covariance.half()}
        tensors |= {f"{layer}.familiar": directions.half() for layer, directions in self.familiarity.directions.items()}
        settings = {
            "tree": self.tree,
            "family": self.family,
            "space": self.space,
            "base": self.base,
            "shapes": self.shapes,
            "temperature": self.calibration.temperature,
            "unknown": self.calibration.unknown,
            "familiar_share": self.familiarity.share,
        }
        if self.provenance:
            settings["provenance"] = self.provenance.document()
        save_checkpoint(path, FORMAT, settings | model_settings, tensors)

    @classmethod
    def load(cls, path: Path) -> "Expert":
        """Read a checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged or of another format.
        """
        settings, tensors = load_checkpoint(path, FORMAT)
        try:
            return cls.from_checkpoint(settings, tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: expected all settings and tensors of an expert, found a gap at {error}; train it again"
            ) from None

    @classmethod
    def from_checkpoint(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Expert":
        """Make an expert of the settings and tensors of a checkpoint.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError: a part is missing or does not fit.
        """
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        shapes = shapes_from_checkpoint(settings)
        model = model_from_checkpoint(settings, shapes, tensors)
        background = Background(tensors["background.mean"], tensors["background.covariance"])
        calibration = Calibration(background, float(settings["temperature"]), float(settings["unknown"]))
        directions = {layer: tensors[f"{layer}.familiar"] for layer in shapes}
        familiarity = Familiarity(directions, float(settings["familiar_share"]))
        tree, family, space = (str(settings[name]) for name in ("tree", "family", "space"))
        made = Provenance.parse(settings["provenance"]) if settings.get("provenance") else None
        return cls(tree, family, space, shapes, model, calibration, familiarity, settings["base"], made)
