"""An expert: what maps the LoRAs of one model tree into a space, and its self-describing checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from torch import Tensor

from retrieval.checkpoint import load_checkpoint, save_checkpoint
from retrieval.errors import CheckpointError
from retrieval.lora import LoraFile
from retrieval.probex.probing import Factors, stack_layers
from retrieval.probex.sketch import SketchConfig, SketchExpert

FORMAT: Final = "loradex-expert-1"


@dataclass(frozen=True, slots=True)
class Expert:
    """An expert of one model tree.

    Attributes:
        tree: the family whose LoRAs it reads.
        space: the name of the space that it maps into.
        shapes: (out, in) of each layer that it needs.
    """

    tree: str
    space: str
    shapes: dict[str, tuple[int, int]]
    model: SketchExpert

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it reads, in its order."""
        return self.model.config.layers

    def fits(self, lora: LoraFile) -> bool:
        """Whether the file has every layer that the expert needs, in the right shape."""
        shapes = lora.shapes
        return lora.family == self.tree and all(shapes.get(layer) == shape for layer, shape in self.shapes.items())

    def encode(self, loras: Sequence[LoraFile]) -> Tensor:
        """Unit vectors (files, dim) in the space, reading only the layers that are needed."""
        return self.encode_factors(stack_layers([lora.updates(self.layers) for lora in loras], self.layers))

    def encode_factors(self, models: Mapping[str, Factors]) -> Tensor:
        """Unit vectors (models, dim) in the space."""
        return self.model.encode(models)

    def save(self, path: Path) -> None:
        """Write the checkpoint; large tensors in half precision."""
        model = self.model
        tensors = {"mean": model.mean.float(), "weight": model.weight.half(), "basis": model.basis.half()}
        for layer in self.layers:
            tensors |= {f"{layer}.left": model.left[layer].half(), f"{layer}.right": model.right[layer].half()}
        save_checkpoint(path, FORMAT, {"tree": self.tree, "space": self.space, "shapes": self.shapes, "sketch": asdict(model.config)}, tensors)

    @classmethod
    def load(cls, path: Path) -> "Expert":
        """Read a checkpoint.

        Raises:
            CheckpointError: it is missing, damaged or of another format.
        """
        settings, tensors = load_checkpoint(path, FORMAT)
        try:
            config = SketchConfig(**settings["sketch"] | {"layers": tuple(settings["sketch"]["layers"])})
            left = {layer: tensors[f"{layer}.left"].float() for layer in config.layers}
            right = {layer: tensors[f"{layer}.right"].float() for layer in config.layers}
            model = SketchExpert(config, left, right, tensors["mean"], tensors["weight"].float(), tensors["basis"].float())
            shapes = {layer: (int(out), int(width)) for layer, (out, width) in settings["shapes"].items()}
            return cls(str(settings["tree"]), str(settings["space"]), shapes, model)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: expected all settings and tensors of an expert, found a gap at {error}; train it again") from None
