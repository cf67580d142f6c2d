"""The part of an expert that reads updates, as the settings and tensors of a checkpoint, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from loradex.retrieval.probex.probes import ProbeConfig, ProbeNet, View
from loradex.retrieval.probex.sketch import SketchConfig, SketchRegression

Shapes = dict[str, tuple[int, int]]  # (out, in) by layer


def model_to_checkpoint(model: SketchRegression | ProbeNet) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and the tensors (in float16) of a model."""
    if isinstance(model, SketchRegression):
        return {"sketch": asdict(model.config), "alignment": model.alignment}, sketch_tensors(model)
    return {"probes": asdict(model.config)}, probe_tensors(model)


def model_from_checkpoint(
    settings: Mapping[str, Any], shapes: Shapes, tensors: Mapping[str, Tensor]
) -> SketchRegression | ProbeNet:
    """Read what ``model_to_checkpoint`` made, of layers with these ``shapes``.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: a part is missing or does not fit.
    """
    if "sketch" in settings:
        return sketch_from_checkpoint(settings, tensors)
    return probes_from_checkpoint(settings["probes"], shapes, tensors)


def shapes_from_checkpoint(settings: Mapping[str, Any]) -> Shapes:
    """The shapes of layers in the settings of an expert.

    Raises:
        KeyError, TypeError, ValueError: they are missing or malformed.
    """
    return {layer: (int(out), int(width)) for layer, (out, width) in settings["shapes"].items()}


def sketch_tensors(model: SketchRegression) -> dict[str, Tensor]:
    """The tensors of a closed form, in float16."""
    parts = {"left": model.left, "right": model.right, "mean": model.mean, "weight": model.weight}
    tensors = {
        f"{layer}.{name}": by_layer[layer].half() for name, by_layer in parts.items() for layer in model.config.layers
    }
    tensors |= {f"{layer}.deviation": deviation.half() for layer, deviation in model.deviation.items()}
    return tensors | {"basis": model.basis.half()}


def sketch_from_checkpoint(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SketchRegression:
    """The closed form of a checkpoint."""
    config = SketchConfig(**settings["sketch"] | {"layers": tuple(settings["sketch"]["layers"])})
    left, right, mean, weight = (
        {layer: tensors[f"{layer}.{name}"] for layer in config.layers} for name in ("left", "right", "mean", "weight")
    )
    alignment = {layer: float(settings["alignment"][layer]) for layer in config.layers}
    names = {layer: f"{layer}.deviation" for layer in config.layers}
    deviation = {layer: tensors[name] for layer, name in names.items() if name in tensors}  # older experts have none
    return SketchRegression(config, left, right, mean, weight, tensors["basis"], alignment, deviation)


def probe_tensors(model: ProbeNet) -> dict[str, Tensor]:
    """The tensors of learned probes, in float16."""
    return {f"net.{name}": tensor.half() for name, tensor in model.state_dict().items()}


def probes_from_checkpoint(settings: dict[str, Any], shapes: Shapes, tensors: Mapping[str, Tensor]) -> ProbeNet:
    """The learned probes of a checkpoint."""
    config = ProbeConfig(
        **settings | {"layers": tuple(settings["layers"]), "views": tuple(map(View, settings["views"]))}
    )
    state = {name.removeprefix("net."): tensor for name, tensor in tensors.items() if name.startswith("net.")}
    text_weight = state.get("text_projection.weight")
    text_dim = text_weight.shape[1] if text_weight is not None else config.representation
    net = ProbeNet(shapes, text_dim, config)
    net.load_state_dict(state)
    return net.eval()
