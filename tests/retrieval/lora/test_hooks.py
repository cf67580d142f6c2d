"""Hooks that add updates of every kind to linear layers and convolutions."""

import pytest
import torch
from torch import nn

from loradex.retrieval.lora.hooks import update_hook
from tests.retrieval.lora.products import some_products


@pytest.mark.parametrize("convolution", [False, True])
def test_the_output_is_that_of_changed_weights(convolution: bool) -> None:
    for update, dense in some_products(40, 36):
        module = nn.Conv2d(4, 40, 3, padding=1) if convolution else nn.Linear(36, 40)
        inputs = torch.randn(2, 4, 5, 6) if convolution else torch.randn(2, 7, 36)
        handle = module.register_forward_hook(update_hook(module, update, 0.5))
        with torch.no_grad():
            hooked = module(inputs)
            handle.remove()
            module.weight += 0.5 * dense.reshape(module.weight.shape)
            torch.testing.assert_close(hooked, module(inputs), atol=1e-3, rtol=1e-3)
