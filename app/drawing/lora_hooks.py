"""Forward hooks that add a model's updates to its base model while it draws.

They add to a module's output, in factor form: no weight of the base model changes, and every format that
``loradex.retrieval.lora`` reads can be drawn.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

from torch import nn

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.lora.hooks import update_hook
from loradex.retrieval.lora.problems import printable

DENOISER: Final = "denoiser"  # key of the UNet or transformer, whose layer names carry no component prefix
TEXT_MODEL_PREFIX: Final = "text_model."  # of CLIP's module names in transformers up to version 4

Components = Mapping[str, nn.Module]


@contextmanager
def apply_updates(components: Components, model: WeightsFile, strength: float) -> Iterator[None]:
    """Add a model's updates, times ``strength``, to the modules of its base model; on exit all hooks are removed.

    Raises:
        FileUnsupported: the base model lacks a layer, or has it in another shape.
        FileCorrupt: an update cannot be used.
    """
    with ExitStack() as stack:
        for layer, update in model.iter_updates():
            module = find_module(components, layer)
            shape = tuple(module.weight.flatten(1).shape) if module else None
            if module is None or shape != update.shape:
                mismatch = (
                    f"expected layer {printable(layer)} of {update.shape} in the base model, found {shape or 'none'}"
                )
                raise FileUnsupported(f"{model.path}: {mismatch}; name the base model that the file was trained on")
            stack.callback(module.register_forward_hook(update_hook(module, update, strength)).remove)
        yield


def find_module(components: Components, layer: str) -> nn.Linear | nn.Conv2d | None:
    """Return the module of a layer, by its name in diffusers; None if there is none that can take an update."""
    prefix, _, rest = layer.partition(".")
    is_text_encoder = prefix.startswith("text_encoder")
    component, name = (components.get(prefix), rest) if is_text_encoder else (components.get(DENOISER), layer)
    if component is None:
        return None
    modules = dict(component.named_modules())
    module = modules.get(name) or modules.get(name.removeprefix(TEXT_MODEL_PREFIX))
    return module if isinstance(module, nn.Linear | nn.Conv2d) else None
