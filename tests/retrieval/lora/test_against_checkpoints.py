"""Layers against diffusers' conversion of checkpoints.

The conversion is linear, so it must turn the dense update into our updates.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import single_file_utils
from safetensors.torch import save_file
from torch import Tensor

from loradex.retrieval.lora import LoraFile
from tests.retrieval.lora.models import KOHYA, PEFT, lora_tensors, random_factors


class Checkpoint(dict[str, Tensor]):
    """A checkpoint with only some of its tensors; zeros stand for the others."""

    def pop(self, key: str, *default: Any) -> Any:
        return super().pop(key, torch.zeros(6, 1))

    def __missing__(self, key: str) -> Tensor:
        return torch.zeros(24, 1)


def square(*names: str) -> dict[str, tuple[int, int]]:
    return dict.fromkeys(names, (24, 24))


def blocks(prefixes: tuple[str, ...], modules: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {prefix + name: shape for prefix in prefixes for name, shape in modules.items()}


QKV, WIDE, NARROW, TWO, SIX = (72, 24), (96, 24), (24, 96), (48, 24), (144, 24)
STREAM = {"attn.qkv": QKV, "attn.proj": (24, 24), "mlp.fc1": WIDE, "mlp.fc2": NARROW, "adaLN_modulation.1": SIX}
LAST_STREAM = {name: shape for name, shape in STREAM.items() if name == "attn.qkv"} | {"adaLN_modulation.1": TWO}
FLUX2 = {
    "img_attn.qkv": QKV,
    "txt_attn.qkv": QKV,
    "img_attn.proj": (24, 24),
    "txt_attn.proj": (24, 24),
    "img_mlp.0": SIX,
    "txt_mlp.2": (24, 72),
}
MODULATIONS = ("single_stream_modulation.lin", "double_stream_modulation_img.lin", "double_stream_modulation_txt.lin")
TABLES: dict[str, tuple[str, dict[str, tuple[int, int]]]] = {
    "sd3": (
        "convert_sd3_transformer_checkpoint_to_diffusers",
        blocks(("joint_blocks.0.x_block.", "joint_blocks.1.x_block.", "joint_blocks.0.context_block."), STREAM)
        | blocks(("joint_blocks.1.context_block.",), LAST_STREAM)
        | blocks(("joint_blocks.0.x_block.",), {"attn2.qkv": QKV, "attn2.proj": (24, 24)})
        | {
            "final_layer.linear": (64, 24),
            "final_layer.adaLN_modulation.1": TWO,
            "context_embedder": (24, 40),
            "t_embedder.mlp.0": (24, 16),
            "y_embedder.mlp.2": (24, 24),
        },
    ),
    "flux2": (
        "convert_flux2_transformer_checkpoint_to_diffusers",
        blocks(("double_blocks.0.", "double_blocks.3."), FLUX2)
        | blocks(("single_blocks.2.",), {"linear1": (216, 24), "linear2": NARROW})
        | square("time_in.out_layer", "guidance_in.in_layer", *MODULATIONS)
        | {"img_in": (24, 8), "txt_in": (24, 40), "final_layer.linear": (8, 24), "final_layer.adaLN_modulation.1": TWO},
    ),
    "wan": (
        "convert_wan_transformer_to_diffusers",
        blocks(("blocks.0.self_attn.", "blocks.7.cross_attn."), square(*"qkvo"))
        | blocks(
            ("blocks.7.",), {"cross_attn.k_img": (24, 24), "cross_attn.v_img": (24, 24), "ffn.0": WIDE, "ffn.2": NARROW}
        )
        | square(
            "time_embedding.0",
            "time_embedding.2",
            "text_embedding.0",
            "text_embedding.2",
            "img_emb.proj.1",
            "img_emb.proj.3",
        )
        | {"time_projection.1": SIX, "head.head": (64, 24)},
    ),
    "z-image": (
        "convert_z_image_transformer_checkpoint_to_diffusers",
        blocks(
            ("layers.0.", "noise_refiner.1.", "context_refiner.0."),
            {"attention.qkv": QKV, "attention.out": (24, 24), "feed_forward.w1": WIDE, "feed_forward.w2": NARROW},
        )
        | {
            "layers.0.adaLN_modulation.0": (96, 16),
            "cap_embedder.1": (24, 40),
            "t_embedder.mlp.2": (16, 24),
            "x_embedder": (24, 8),
            "final_layer.linear": (8, 24),
        },
    ),
    "lumina2": (
        "convert_lumina2_to_diffusers",
        blocks(
            ("layers.0.", "context_refiner.1."),
            {
                "attention.qkv": (3840, 2304),
                "attention.out": (24, 24),
                "feed_forward.w1": WIDE,
                "feed_forward.w2": NARROW,
            },
        )
        | {"noise_refiner.0.adaLN_modulation.1": WIDE, "cap_embedder.1": (24, 40), "t_embedder.mlp.2": (16, 24)}
        | {"final_layer.linear": (8, 24), "final_layer.adaLN_modulation.1": (24, 16)},
    ),
    "anima": (
        "convert_cosmos_transformer_checkpoint_to_diffusers",
        blocks(("blocks.3.self_attn.", "blocks.0.cross_attn."), square("q_proj", "k_proj", "v_proj", "output_proj"))
        | blocks(
            ("blocks.3.",),
            {"mlp.layer1": WIDE, "mlp.layer2": NARROW}
            | square("adaln_modulation_mlp.1", "adaln_modulation_self_attn.2"),
        )
        | {
            "final_layer.linear": (8, 24),
            "final_layer.adaln_modulation.1": (24, 24),
            "t_embedder.1.linear_1": (24, 24),
            "x_embedder.proj.1": (24, 8),
        },
    ),
    "krea2": (
        "convert_krea2_transformer_checkpoint_to_diffusers",
        blocks(
            ("blocks.3.", "txtfusion.layerwise_blocks.0.", "txtfusion.refiner_blocks.1."),
            square("attn.wq", "attn.wo", "attn.gate", "mlp.gate", "mlp.up", "mlp.down"),
        )
        | square("first", "last.linear", "tmlp.0", "tmlp.2", "tproj.1", "txtmlp.1", "txtmlp.3", "txtfusion.projector"),
    ),
}


@pytest.mark.parametrize("separator", ["dots", "underscores"])
@pytest.mark.parametrize("family", TABLES)
def test_layers_are_those_of_the_converted_checkpoint(tmp_path: Path, family: str, separator: str) -> None:
    converter, table = TABLES[family]
    factors = random_factors({name: torch.Size(shape) for name, shape in table.items()}, rank=1)
    rename: Callable[[str], str] = (
        "diffusion_model.{}".format if separator == "dots" else lambda name: "lora_unet_" + name.replace(".", "_")
    )
    save_file(lora_tensors(factors, rename, PEFT if separator == "dots" else KOHYA), tmp_path / "x")
    lora = LoraFile.open(tmp_path / "x")
    theirs = getattr(single_file_utils, converter)(
        Checkpoint({f"{name}.weight": up @ down for name, (down, up) in factors.items()})
    )
    expected = {
        name.removesuffix(".weight"): tensor
        for name, tensor in theirs.items()
        if name.endswith(".weight") and tensor.any()
    }
    assert lora.parsed.architectures[0] == family
    assert lora.parsed.untranslated == frozenset()
    assert set(lora.layers) == set(expected)
    for name, update in lora.updates().items():
        torch.testing.assert_close(
            update.up @ update.down, expected[name], msg=lambda text, name=name: f"{name}: {text}"
        )
