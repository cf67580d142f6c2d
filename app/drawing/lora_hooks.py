"""A model's updates, attached to the modules of its base model for as long as it draws.

They are added to what a module gives, in factor form, so that no weight of the base is ever changed, and every format that
``loradex.retrieval.lora`` reads can be drawn.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch.nn.functional as F
from torch import Tensor, nn

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import LayerUpdate, WeightsFile
from loradex.retrieval.lora.problems import shown

DENOISER: Final = "denoiser"  # the part whose layers have no component in front of their names
TEXT_MODEL: Final = "text_model."  # which transformers had in front of CLIP's names up to version 4

Parts = Mapping[str, nn.Module]
Hook = Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]


@contextmanager
def attached(parts: Parts, model: WeightsFile, strength: float) -> Iterator[None]:
    """Within, the modules of a base model add a model's updates, ``strength`` times; after it they are as before.

    Raises:
        FileUnsupported: the base model has no such layer, or has it in another shape.
        FileCorrupt: an update cannot be used.
    """
    with ExitStack() as stack:
        for layer, update in model.each_update():
            module = module_of(parts, layer)
            found = tuple(module.weight.flatten(1).shape) if module else None
            if module is None or found != update.shape:
                asked = f"expected layer {shown(layer)} of {update.shape} in the base model, found {found or 'none'}"
                raise FileUnsupported(f"{model.path}: {asked}; name the base model that the file was trained on")
            stack.callback(module.register_forward_hook(adding(module, update, strength)).remove)
        yield


def module_of(parts: Parts, layer: str) -> nn.Linear | nn.Conv2d | None:
    """The module of a layer, by its name in diffusers, if there is one that can take an update."""
    component, _, inner = layer.partition(".")
    part, name = (parts.get(component), inner) if component.startswith("text_encoder") else (parts.get(DENOISER), layer)
    if part is None:
        return None
    modules = dict(part.named_modules())
    module = modules.get(name) or modules.get(name.removeprefix(TEXT_MODEL))
    return module if isinstance(module, nn.Linear | nn.Conv2d) else None


def adding(module: nn.Linear | nn.Conv2d, update: LayerUpdate, strength: float) -> Hook:
    """What adds an update to what a module gives."""
    down, up = update.down.to(module.weight), (update.up * strength).to(module.weight)
    if isinstance(module, nn.Linear):
        return lambda _, given, made: made + F.linear(F.linear(given[0], down), up)
    kernel, mix, padding = down.unflatten(1, module.weight.shape[1:]), up[..., None, None], module.padding
    return lambda _, given, made: (
        made + F.conv2d(F.conv2d(given[0], kernel, None, module.stride, padding, module.dilation), mix)
    )
