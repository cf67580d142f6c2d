"""The tensors of one small LoRA as trainers save them."""

import torch
from torch import Tensor

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
TO_Q = f"{BLOCK}.attn1.to_q"
LAYERS = {TO_Q: (96, 96), f"{BLOCK}.attn2.to_k": (96, 128), f"{BLOCK}.attn1.to_out.0": (96, 96)}


def random_factors(rank: int = 4, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    torch.manual_seed(seed)
    return {layer: (torch.randn(rank, width), torch.randn(out, rank)) for layer, (out, width) in LAYERS.items()}


def diffusers(factors: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return {
        f"unet.{layer}.lora.{half}.weight": tensor
        for layer, pair in factors.items()
        for half, tensor in zip(("down", "up"), pair, strict=True)
    }


def peft(
    factors: dict[str, tuple[Tensor, Tensor]], prefix: str = "base_model.model.", adapter: str = ""
) -> dict[str, Tensor]:
    return {
        f"{prefix}{layer}.lora_{half}{adapter}.weight": tensor
        for layer, pair in factors.items()
        for half, tensor in zip("AB", pair, strict=True)
    }


def attn_processor(factors: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    tensors = {}
    for layer, pair in factors.items():
        block, _, to = layer.removesuffix(".0").rpartition(".")
        tensors |= {
            f"{block}.processor.{to}_lora.{half}.weight": tensor
            for half, tensor in zip(("down", "up"), pair, strict=True)
        }
    return tensors


def kohya(factors: dict[str, tuple[Tensor, Tensor]], alpha: Tensor | None = None, join: str = ".") -> dict[str, Tensor]:
    tensors = {}
    for layer, pair in factors.items():
        module = "lora_unet_" + layer.replace(".", "_")
        tensors |= {
            f"{module}{join}lora_{half}.weight": tensor for half, tensor in zip(("down", "up"), pair, strict=True)
        }
        tensors |= {} if alpha is None else {f"{module}.alpha": alpha.clone()}
    return tensors
