"""A LoRA's own update of a text encoder, added by forward hooks in factor form; no weight of the encoder changes."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from torch import nn

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import Update
from loradex.retrieval.lora.hooks import update_hook
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.text_states.weights import TEXT_MODEL

COMPONENT: Final = "text_encoder"  # beginning of the names of all text encoders in diffusers
LAYER: Final = re.compile(r"encoder\.layers\.(\d{1,3})\.")
PROJECTION: Final = "text_projection"  # behind the states


@contextmanager
def apply_updates(
    encoders: Mapping[str, Any], saved_layers: Mapping[str, int], updates: Mapping[str, Update]
) -> Iterator[tuple[str, ...]]:
    """Add updates to the layers of text encoders; on exit all hooks are removed.

    Args:
        encoders: transformers' text models by component.
        saved_layers: of each, how many layers its base model has; those that were left out of it change no state.
        updates: by layer, as ``LoraFile.updates``; those of a U-Net are passed over.

    Yields:
        The layers of text encoders that are not added, as the encoders lack them or have no linear map there.

    Raises:
        FileUnsupported: a layer has another shape in the encoder.
    """
    modules = {name: dict(encoder.named_modules()) for name, encoder in encoders.items()}
    left_out = []
    with ExitStack() as stack:
        for layer, update in updates.items():
            component, _, name = layer.partition(".")
            if not component.startswith(COMPONENT):
                continue
            name = name.removeprefix(TEXT_MODEL)
            module = modules.get(component, {}).get(name)
            if isinstance(module, nn.Linear):
                shape = tuple(module.weight.shape)
                if shape != update.shape:
                    raise FileUnsupported(
                        f"layer {printable(layer)}: expected an update of {shape}, as the text encoder has it, "
                        f"found {update.shape}; name the base model that the file was trained on"
                    )
                stack.callback(module.register_forward_hook(update_hook(module, update)).remove)
            elif not lies_behind(name, encoders.get(component), saved_layers.get(component, 0)):
                left_out.append(layer)
        yield tuple(left_out)


def lies_behind(name: str, encoder: Any, saved_layers: int) -> bool:
    """Whether a layer changes no state, as it is one of the last of ``saved_layers`` that the encoder leaves out."""
    if encoder is None:
        return False
    match = LAYER.match(name)
    return len(encoder.encoder.layers) <= int(match[1]) < saved_layers if match else name == PROJECTION
