"""An expert: what maps the LoRAs of one model tree into a space, and its self-describing checkpoint."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.probex.batched_factors import Factors, stack_layers, widen
from loradex.retrieval.probex.familiarity import Familiarity
from loradex.retrieval.probex.probes import ProbeConfig, ProbeNet, View
from loradex.retrieval.probex.sketch import SketchConfig, SketchExpert
from loradex.retrieval.space.calibration import Background, Calibration

FORMAT: Final = "loradex-expert-2"
NEAR: Final = 0.5  # how far a whole model may lie from its base, relative to it; a base model trained on its own lies further than 1
LEAST_SHARE: Final = 0.5  # of what an expert's layers say together, which a file must have

Shapes = dict[str, tuple[int, int]]


class TreeReader:
    """What reads models of one tree: the layers that it needs of a file, and whether the file has them.

    Attributes:
        tree: a name for the model tree whose models it reads.
        family: the family whose layers they have; several trees may be of one family.
        space: the name of the space that it maps into.
        shapes: (out, in) of each layer that it reads.
        model: a closed form, or learned probes.
        base: where the base model's weights lie, seen from the encoder's folder, if they are at hand; whole models are read by their difference to it.
    """

    __slots__ = ()
    tree: str
    family: str
    space: str
    shapes: Shapes
    model: SketchExpert | ProbeNet
    base: str | None

    @property
    def reach(self) -> float:
        """How far whole models may lie from the base, relative to its length."""
        return NEAR

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it reads, in its order."""
        return self.model.config.layers

    def readable(self, lora: WeightsFile) -> list[str]:
        """The layers that it reads and the file has, in the right shape; none when they are too few to tell anything.

        Learned probes need all of them; a closed form, at least half of what its layers say.
        """
        shapes = lora.shapes
        there = [layer for layer in self.layers if shapes.get(layer) == self.shapes[layer]]
        return there if lora.family == self.family and self.enough(there) else []

    def enough(self, layers: Collection[str]) -> bool:
        """Whether these layers of its own are enough to read a model by."""
        if isinstance(self.model, SketchExpert):
            said = self.model.alignment
            return sum(said[layer] for layer in layers) >= LEAST_SHARE * sum(said.values())
        return len(layers) == len(self.layers)

    def read(self, loras: Sequence[WeightsFile]) -> dict[str, Factors]:
        """The layers that it needs of files that have the same ones, reading only their bytes.

        Raises:
            FileCorrupt: the weights cannot be used.
        """
        layers = self.readable(loras[0])
        return stack_layers([lora.updates(layers) for lora in loras], layers)


@dataclass(frozen=True, slots=True)
class Expert(TreeReader):
    """An expert of one model tree.

    Attributes:
        tree: a name for the model tree whose LoRAs it reads.
        family: the family whose layers they have; several trees may be of one family.
        space: the name of the space that it maps into.
        shapes: (out, in) of each layer that it reads.
        model: a closed form, or learned probes.
        calibration: what its scores of labels are worth.
        familiarity: what tells LoRAs of its tree from those of others of the same structure.
        base: see ``TreeReader``.
    """

    tree: str
    family: str
    space: str
    shapes: Shapes
    model: SketchExpert | ProbeNet
    calibration: Calibration
    familiarity: Familiarity
    base: str | None = None

    @torch.inference_mode()
    def encode_factors(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit vectors (models, dim) in the space."""
        return self.model.encode(
            {layer: widen(factors).to(self.model.device) for layer, factors in models.items()}
        ).cpu()

    def on(self, device: str) -> "Expert":
        """The same expert, which encodes on a device; what tells its tree's LoRAs from strangers stays where it is."""
        return replace(self, model=self.model.to(device))

    def save(self, path: Path) -> None:
        """Write the checkpoint; large tensors in half precision."""
        own, tensors = parts_of(self.model)
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
        save_checkpoint(path, FORMAT, settings | own, tensors)

    @classmethod
    def load(cls, path: Path) -> "Expert":
        """Read a checkpoint.

        Raises:
            CheckpointError: it is missing, damaged or of another format.
        """
        settings, tensors = load_checkpoint(path, FORMAT)
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        try:
            shapes = shapes_of(settings)
            model = model_of(settings, shapes, tensors)
            background = Background(tensors["background.mean"], tensors["background.covariance"])
            calibration = Calibration(background, float(settings["temperature"]), float(settings["unknown"]))
            familiarity = Familiarity(
                {layer: tensors[f"{layer}.familiar"] for layer in shapes}, float(settings["familiar_share"])
            )
            tree, family, space = (str(settings[name]) for name in ("tree", "family", "space"))
            return cls(tree, family, space, shapes, model, calibration, familiarity, settings["base"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: expected all settings and tensors of an expert, found a gap at {error}; train it again"
            ) from None


def shapes_of(settings: Mapping[str, Any]) -> Shapes:
    """The shapes in a checkpoint's settings.

    Raises:
        KeyError, TypeError, ValueError: they are missing or none.
    """
    return {layer: (int(out), int(width)) for layer, (out, width) in settings["shapes"].items()}


def parts_of(model: SketchExpert | ProbeNet) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and tensors of what reads updates, as a checkpoint has them."""
    if isinstance(model, SketchExpert):
        return {"sketch": asdict(model.config), "alignment": model.alignment}, sketch_tensors(model)
    return {"probes": asdict(model.config)}, net_tensors(model)


def model_of(settings: Mapping[str, Any], shapes: Shapes, tensors: Mapping[str, Tensor]) -> SketchExpert | ProbeNet:
    """The reverse of ``parts_of``.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: something is missing or does not fit.
    """
    return sketch_of(settings, tensors) if "sketch" in settings else net_of(settings["probes"], shapes, tensors)


def sketch_tensors(model: SketchExpert) -> dict[str, Tensor]:
    """The tensors of a closed form, in half precision."""
    parts = {"left": model.left, "right": model.right, "mean": model.mean, "weight": model.weight}
    tensors = {
        f"{layer}.{name}": by_layer[layer].half() for name, by_layer in parts.items() for layer in model.config.layers
    }
    return tensors | {"basis": model.basis.half()}


def sketch_of(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SketchExpert:
    """The closed form of a checkpoint."""
    config = SketchConfig(**settings["sketch"] | {"layers": tuple(settings["sketch"]["layers"])})
    left, right, mean, weight = (
        {layer: tensors[f"{layer}.{name}"] for layer in config.layers} for name in ("left", "right", "mean", "weight")
    )
    return SketchExpert(
        config,
        left,
        right,
        mean,
        weight,
        tensors["basis"],
        {layer: float(settings["alignment"][layer]) for layer in config.layers},
    )


def net_tensors(model: ProbeNet) -> dict[str, Tensor]:
    """The tensors of learned probes, in half precision."""
    return {f"net.{name}": tensor.half() for name, tensor in model.state_dict().items()}


def net_of(settings: dict[str, Any], shapes: Shapes, tensors: Mapping[str, Tensor]) -> ProbeNet:
    """The learned probes of a checkpoint."""
    config = ProbeConfig(
        **settings | {"layers": tuple(settings["layers"]), "views": tuple(map(View, settings["views"]))}
    )
    state = {name.removeprefix("net."): tensor for name, tensor in tensors.items() if name.startswith("net.")}
    text = state.get("text_projection.weight")
    net = ProbeNet(shapes, text.shape[1] if text is not None else config.representation, config)
    net.load_state_dict(state)
    return net.eval()
