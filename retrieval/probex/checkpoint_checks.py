"""Checks of an expert's checkpoint that comes from somebody else: bounds, names, numbers, and shapes that fit together.

They hold before anything is made of it, so that no setting can ask for more memory than the file itself has.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import torch

from loradex.retrieval.lora.family import UNETS
from loradex.retrieval.lora.layer_names.translate import ARCHITECTURES
from loradex.retrieval.probex.probes import ProbeConfig, ProbeNet, View
from loradex.retrieval.probex.provenance import Provenance, is_plain_text
from loradex.retrieval.probex.serialization import Shapes

MAX_LAYERS: Final = 5000
MAX_SIDE: Final = 2**20  # of a layer
MAX_DIRECTIONS: Final = 1024  # of one side of a sketch, whose square is computed
MAX_PROBE_SIZE: Final = 8192  # of any setting of learned probes
TREE_NAME: Final = re.compile(r"\w[\w .+()-]{0,99}(?<![ .])")
FAMILIES: Final = frozenset({*UNETS, *(each.name for each in ARCHITECTURES if each.name != "unet")})
TensorShapes = Mapping[str, tuple[int, ...]]


def check_expert(settings: Mapping[str, Any], tensors: TensorShapes) -> None:
    """Check the settings of an expert's checkpoint and the shapes of its tensors.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: something is out of bounds, missing, or does not fit.
    """
    check_tree_name(settings["tree"])
    if settings["family"] not in FAMILIES:
        raise ValueError(f"family {ascii(settings['family'])[:80]}, which this Loradex does not know; update it")
    if not is_plain_text(settings["space"]):
        raise ValueError("no name of a space")
    if settings["base"] is not None:
        raise ValueError("the path of a base model")
    for name in "temperature", "familiar_share":
        if not positive(settings[name]):
            raise ValueError(f"a {name} of {ascii(settings[name])[:80]}")
    if not finite(settings["unknown"]):
        raise ValueError(f"a logit of {ascii(settings['unknown'])[:80]}")
    if settings.get("provenance") is not None:
        Provenance.parse(settings["provenance"])
    shapes = checked_shapes(settings["shapes"])
    (dim,) = tensors["background.mean"]
    expect(tensors, "background.covariance", (dim, dim))
    for layer, (out, _) in shapes.items():
        expect(tensors, f"{layer}.familiar", (min(tensors[f"{layer}.familiar"][0], out), out))
    if "sketch" in settings:
        check_sketch(settings, shapes, tensors, dim)
    else:
        check_probes(settings["probes"], shapes, tensors, dim)


def check_tree_name(name: Any) -> None:
    """Check that a model tree's name can be the name of a file.

    Raises:
        ValueError: it cannot.
    """
    if not isinstance(name, str) or not TREE_NAME.fullmatch(name):
        raise ValueError(f"a model tree named {ascii(name)[:80]}, which cannot be a file's name")


def checked_shapes(value: Any) -> Shapes:
    """The shapes of layers, within bounds."""
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_LAYERS:
        raise ValueError(f"no list of 1 to {MAX_LAYERS} layers")
    for layer, shape in value.items():
        if not is_plain_text(layer) or not layer:
            raise ValueError(f"a layer named {ascii(layer)[:80]}")
        sides = shape if isinstance(shape, list | tuple) and len(shape) == 2 else ()
        if not sides or not all(type(side) is int and 0 < side <= MAX_SIDE for side in sides):
            raise ValueError(f"layer {layer} of shape {ascii(shape)[:80]}")
    return {layer: (out, width) for layer, (out, width) in value.items()}


def checked_layers(value: Any, shapes: Shapes) -> list[str]:
    """The names of the layers that are read, each once and with a shape."""
    if (
        not isinstance(value, list | tuple)
        or not value
        or len(set(value)) != len(value)
        or not set(value) <= set(shapes)
    ):
        raise ValueError(f"layers {ascii(value)[:80]}, which are not those with shapes")
    return list(value)


def check_sketch(settings: Mapping[str, Any], shapes: Shapes, tensors: TensorShapes, dim: int) -> None:
    """Check the settings and tensors of a closed form."""
    config = settings["sketch"]
    numbers = [value for name, value in config.items() if name != "layers" and value is not None]
    if not all(isinstance(value, str) or finite(value) for value in numbers):
        raise ValueError("a setting of the sketch that is no number")
    rank, _ = tensors["basis"]
    expect(tensors, "basis", (rank, dim))
    for layer in checked_layers(config["layers"], shapes):
        out, width = shapes[layer]
        outputs, inputs = tensors[f"{layer}.left"][0], tensors[f"{layer}.right"][-1]
        if not (0 < outputs <= min(out, MAX_DIRECTIONS) and 0 < inputs <= min(width, MAX_DIRECTIONS)):
            raise ValueError(f"{outputs} output and {inputs} input directions of layer {layer}")
        features = outputs * inputs + (outputs * (outputs + 1) // 2 if config["quadratic"] else 0)
        expect(tensors, f"{layer}.left", (outputs, out))
        expect(tensors, f"{layer}.right", (width, inputs))
        expect(tensors, f"{layer}.mean", (features,))
        expect(tensors, f"{layer}.weight", (features, rank))
        if not finite(settings["alignment"][layer]):
            raise ValueError(f"no alignment of layer {layer}")


def check_probes(settings: dict[str, Any], shapes: Shapes, tensors: TensorShapes, dim: int) -> None:
    """Check the settings and tensors of learned probes, by a net that has no memory of its own."""
    layers = checked_layers(settings["layers"], shapes)
    views = tuple(map(View, settings["views"]))
    config = ProbeConfig(**settings | {"layers": tuple(layers), "views": views})
    sizes = (config.probes, config.projection, config.representation)
    if not all(type(size) is int and 0 < size <= MAX_PROBE_SIZE for size in sizes) or len(set(views)) != len(views):
        raise ValueError(f"probes of sizes {ascii(sizes)[:80]}")
    if config.categories or not finite(config.layer_dropout):
        raise ValueError("probes that predict categories")
    text = tensors.get("net.text_projection.weight", (0, config.representation))
    with torch.device("meta"):
        net = ProbeNet(shapes, min(text[-1], MAX_PROBE_SIZE), config)
    for name, parameter in net.state_dict().items():
        expect(tensors, f"net.{name}", tuple(parameter.shape))
    if dim != (text[-1] if config.text_projection else config.representation):
        raise ValueError(f"vectors of {config.representation} numbers for a space of {dim}")


def expect(tensors: TensorShapes, name: str, shape: tuple[int, ...]) -> None:
    """Check the shape of one tensor."""
    if tensors[name] != shape:
        raise ValueError(f"tensor {name[:120]} of shape {tensors[name]} where {shape} fits")


def finite(value: Any) -> bool:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def positive(value: Any) -> bool:
    """Whether a value of JSON is a finite number above 0."""
    return finite(value) and value > 0
