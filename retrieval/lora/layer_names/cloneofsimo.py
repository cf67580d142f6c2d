"""Translation of cloneofsimo's names of modules: their positions in the order in which their model registered them.

The trainer counts the linear layers (in its extended form, kernels too) in modules of some classes, which the metadata
list. Versions of diffusers and transformers differ in the order, so the shapes of the modules choose among the known
orders, and must all agree with the chosen one.

Source: ``lora_diffusion/lora.py`` (``_find_modules_v2``, ``save_safeloras``).
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora.layer_names.counted_modules import TEXT_ENCODER, UNET, CountedModule, known_orders

Shapes = Mapping[str, tuple[int, int]]  # (out, in) by module
TargetClasses = tuple[str, str]  # JSON lists of class names, for the U-Net and for the text encoder
MAX_SHOWN_CLASSES: Final = 120
RESNET: Final = "ResnetBlock2D"
# the classes that hold attention, whose projections only a class tells apart: most have the same shape
ATTENTION_CLASSES: Final = {
    UNET: frozenset({"CrossAttention", "Attention", "BasicTransformerBlock"}),
    TEXT_ENCODER: frozenset({"CLIPAttention", "CLIPSdpaAttention", "CLIPFlashAttention2", "CLIPEncoderLayer"}),
}
MODEL_NAMES: Final = {UNET: "U-Net of Stable Diffusion 1 or 2", TEXT_ENCODER: "text encoder CLIP"}


@dataclass(frozen=True, slots=True)
class NamedPositions:
    """The paths of numbered modules.

    Attributes:
        paths: by module, as ``unet:<position>``.
        doubts: one short line each, where an order is assumed.
    """

    paths: dict[str, str]
    doubts: list[str]


def target_classes(metadata: Mapping[str, str]) -> TargetClasses:
    """The classes of the numbered modules, as the metadata list them."""
    return metadata.get(UNET, ""), metadata.get(TEXT_ENCODER, "")


def name_positions(shapes: Shapes, targets: TargetClasses) -> NamedPositions:
    """The dotted path of each ``unet:<position>`` and ``text_encoder:<position>``.

    Raises:
        FileUnsupported: the LoRA was trained on modules whose order is not known.
    """
    named = NamedPositions({}, [])
    strange = [module for module in shapes if module.partition(":")[0] not in MODEL_NAMES]
    if strange:
        raise FileUnsupported(
            f"expected modules such as unet:0 or text_encoder:0 in order, found {strange[0][:80]!a}; convert it first"
        )
    for model, text in zip((UNET, TEXT_ENCODER), targets, strict=True):
        of_model = {module: shape for module, shape in shapes.items() if module.startswith(f"{model}:")}
        if not of_model:
            continue
        classes = parse_names(text)
        order = find_order(model, of_model, classes)
        named.paths.update({f"{model}:{i}": module.path for i, module in enumerate(order)})
        if classes and classes.isdisjoint(ATTENTION_CLASSES[model]) and any("attn" in module.path for module in order):
            named.doubts.append(
                f"the order of the modules of {shown(classes)} ({model}) is not known; that of {shown(ATTENTION_CLASSES[model])} is assumed"
            )
    return named


def find_order(model: str, shapes: Shapes, classes: Collection[str]) -> Sequence[CountedModule]:
    """The order of the model's modules that has their number and all their shapes.

    Raises:
        FileUnsupported: none has.
    """
    expected = f"{model}: expected modules of the {MODEL_NAMES[model]} in order, found"
    missing = next((i for i in range(len(shapes)) if f"{model}:{i}" not in shapes), None)
    if missing is not None:
        raise FileUnsupported(f"{expected} {len(shapes)} without {model}:{missing}; convert it first")
    numbered = [shapes[f"{model}:{i}"] for i in range(len(shapes))]
    orders = [
        order for order in known_orders(model).get(len(numbered), []) if RESNET not in classes or has_resnets(order)
    ]
    fitting = [count_fitting(order, numbered) for order in orders]
    longest = max(fitting, default=0)
    if not longest:
        raise FileUnsupported(
            f"{expected} {len(numbered)} of {shown(classes)}, which fit no known order; convert it first"
        )
    order = orders[fitting.index(longest)]
    if longest < len(order):
        found = f"{model}:{longest} of shape {numbered[longest]} of {shown(classes)}"
        raise FileUnsupported(f"{expected} {found} in the place of {order[longest].path}; convert it first")
    return order


def has_resnets(order: Iterable[CountedModule]) -> bool:
    """Whether modules of resnets are counted too."""
    return any(".resnets." in module.path for module in order)


def count_fitting(order: Sequence[CountedModule], shapes: Sequence[tuple[int, int]]) -> int:
    """Count the shapes that fit an order of as many modules, up to the first that does not."""
    widths: dict[str, int] = {}
    fits = (module.fits(shape, widths) for module, shape in zip(order, shapes, strict=True))
    return next((i for i, fit in enumerate(fits) if not fit), len(order))


def shown(classes: Iterable[str]) -> str:
    """Names of classes as messages show them."""
    return ascii(", ".join(sorted(classes)) or "unnamed classes")[1:-1][:MAX_SHOWN_CLASSES]


def parse_names(text: str) -> set[Any]:
    """The names in a JSON list; empty if it is not valid."""
    try:
        names = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
