"""Forward hooks that add an update to a module's output in factor form; no weight of the module changes."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from loradex.retrieval.lora.update import LayerUpdate, Update

Hook = Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]


def update_hook(module: nn.Linear | nn.Conv2d, update: Update, strength: float = 1.0) -> Hook:
    """Return a forward hook that adds an update to a module's output."""
    if isinstance(module, nn.Linear) and not isinstance(update, LayerUpdate):
        moved = update.part([(0, update.shape[0])], strength).to(module.weight)
        return lambda _, inputs, output: output + moved.times(inputs[0].flatten(0, -2).mT).mT.reshape(output.shape)
    down, up = update.down.to(module.weight), (update.up * strength).to(module.weight)
    if isinstance(module, nn.Linear):
        return lambda _, inputs, output: output + F.linear(F.linear(inputs[0], down), up)
    down_kernel, up_kernel, padding = down.unflatten(1, module.weight.shape[1:]), up[..., None, None], module.padding
    return lambda _, inputs, output: (
        output + F.conv2d(F.conv2d(inputs[0], down_kernel, None, module.stride, padding, module.dilation), up_kernel)
    )
