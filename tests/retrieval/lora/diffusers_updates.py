"""Helpers of tests that compare updates with those that diffusers and peft make of the same file."""

from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loradex.retrieval.lora import LayerUpdate, LoraFile

EXACT: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def adapter_deltas(model: nn.Module, adapter: str = "x") -> dict[str, Tensor]:
    """What peft adds to each weight of a model."""
    return {
        name: module.get_delta_weight(adapter)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def assert_same_updates(ours: dict[str, LayerUpdate], theirs: dict[str, Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name, update in ours.items():
        torch.testing.assert_close(
            update.up @ update.down,
            theirs[name].float().flatten(1),
            msg=lambda text, name=name: f"{name}: {text}",
            **EXACT,
        )


def save_and_open(tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> LoraFile:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "x.safetensors", metadata)
    return LoraFile.open(tmp_path / "x.safetensors")


def kohya_name(name: str) -> str:
    return "lora_unet_" + name.replace(".", "_")


def assert_same_as_converted(lora: LoraFile, mixin: Any) -> None:
    """Compare updates with those that diffusers makes of the file, by their products with vectors."""
    state = mixin.lora_state_dict(load_file(lora.path))
    state = {
        name.removeprefix("transformer."): tensor
        for name, tensor in (state[0] if isinstance(state, tuple) else state).items()
    }
    updates = lora.updates()
    assert set(updates) == {name.rpartition(".lora_")[0] for name in state}
    for name, update in updates.items():
        vectors = torch.randn(update.shape[1], 3) / update.shape[1] ** 0.5
        theirs = state[f"{name}.lora_B.weight"] @ (state[f"{name}.lora_A.weight"] @ vectors)
        torch.testing.assert_close(
            update.up @ (update.down @ vectors), theirs, msg=lambda text, name=name: f"{name}: {text}", **EXACT
        )
