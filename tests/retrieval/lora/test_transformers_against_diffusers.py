"""Updates of diffusion transformers against those that diffusers makes of the same file.

Most are smaller than any model, so that only the names of their layers tell the architecture.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import (
    FluxLoraLoaderMixin,
    QwenImageLoraLoaderMixin,
    WanLoraLoaderMixin,
    ZImageLoraLoaderMixin,
)
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin, HunyuanVideoLoraLoaderMixin
from safetensors.torch import load_file

from tests.retrieval.lora.diffusers_updates import (
    adapter_deltas,
    assert_same_as_converted,
    assert_same_updates,
    kohya_name,
    save_and_open,
)
from tests.retrieval.lora.models import DIFFUSERS, KOHYA, PEFT, lora_tensors, qwen, random_factors, wan, weight_shapes

WAN_NAMES = {
    "attn1": "self_attn",
    "attn2": "cross_attn",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "o",
    "net.0.proj": "0",
    "net.2": "2",
}


def wan_name(name: str) -> str:
    for theirs, ours in WAN_NAMES.items():
        name = name.replace(theirs, ours)
    return name


@pytest.mark.parametrize(
    ("rename", "endings", "alpha"),
    [
        (lambda name: kohya_name(wan_name(name)), KOHYA, 1.0),
        (lambda name: "diffusion_model." + wan_name(name), PEFT, None),
        (lambda name: "diffusion_model." + wan_name(name), KOHYA, 1.0),
    ],
)
def test_wan(tmp_path: Path, rename: Any, endings: tuple[str, str], alpha: float | None) -> None:
    model = wan()
    factors = random_factors(
        {name: shape for name, shape in weight_shapes(model).items() if name.startswith("blocks.")}
    )
    lora = save_and_open(tmp_path, lora_tensors(factors, rename, endings, alpha))
    model.load_lora_adapter(WanLoraLoaderMixin.lora_state_dict(load_file(lora.path)), adapter_name="x")
    assert_same_updates(lora.updates(), adapter_deltas(model))
    assert lora.parsed.architectures[0] == "wan"


@pytest.mark.parametrize(
    ("rename", "endings"),
    [
        (kohya_name, KOHYA),
        ("transformer.{}".format, PEFT),
        ("diffusion_model.{}".format, (".lora_A.default.weight", ".lora_B.default.weight")),
    ],
)
def test_qwen_image(tmp_path: Path, rename: Any, endings: tuple[str, str]) -> None:
    model = qwen()
    lora = save_and_open(
        tmp_path,
        lora_tensors(random_factors(weight_shapes(model)), rename, endings, alpha=1.0 if endings == KOHYA else None),
    )
    model.load_lora_adapter(QwenImageLoraLoaderMixin.lora_state_dict(load_file(lora.path)), adapter_name="x")
    assert_same_updates(lora.updates(), adapter_deltas(model))
    assert lora.parsed.architectures[0] == "qwen-image"


FLUX_DOUBLE = {
    "img_attn.qkv": (72, 24),
    "txt_attn.qkv": (72, 24),
    "img_attn.proj": (24, 24),
    "txt_attn.proj": (24, 24),
    "img_mlp.0": (96, 24),
    "img_mlp.2": (24, 96),
    "txt_mlp.0": (96, 24),
    "txt_mlp.2": (24, 96),
    "img_mod.lin": (144, 24),
    "txt_mod.lin": (144, 24),
}


def shapes(table: dict[str, tuple[int, int]], prefix: str = "") -> dict[str, torch.Size]:
    return {prefix + name: torch.Size(shape) for name, shape in table.items()}


@pytest.mark.parametrize("sparse", [False, True])
def test_kohya_of_flux(tmp_path: Path, sparse: bool) -> None:
    """Single blocks have their true size, as diffusers splits them at fixed rows."""
    single = {"linear1": (21504, 3072), "linear2": (3072, 15360), "modulation.lin": (9216, 3072)}
    factors = random_factors(
        shapes(FLUX_DOUBLE, "double_blocks.0.") | shapes(FLUX_DOUBLE, "double_blocks.11."), rank=3
    ) | random_factors(shapes(single, "single_blocks.7."), 1)
    if sparse:  # as kohya saves queries, keys and values that were trained separately
        for name in list(factors):
            if "qkv" in name:
                factors[name] = (factors[name][0], torch.block_diag(*factors[name][1][:, :1].split(24)))
    outside = {
        "final_layer.linear": (64, 24),
        "img_in": (24, 64),
        "txt_in": (24, 32),
        "time_in.in_layer": (24, 16),
        "vector_in.out_layer": (24, 24),
    }
    tensors = lora_tensors(factors, kohya_name, KOHYA, alpha=2.0) | lora_tensors(
        random_factors(shapes(outside)), kohya_name, KOHYA
    )
    lora = save_and_open(
        tmp_path,
        tensors | lora_tensors(random_factors(shapes({"final_layer.adaLN_modulation.1": (48, 24)})), kohya_name, KOHYA),
    )
    assert_same_as_converted(lora, FluxLoraLoaderMixin)
    assert lora.parsed.architectures[0] == "flux1"


def test_all_names_of_flux_give_the_same_layers(tmp_path: Path) -> None:
    """BFL's names with dots, OneTrainer's with underscores and in parts, and diffusers' give one hash."""
    kohya = save_and_open(
        tmp_path, lora_tensors(random_factors(shapes(FLUX_DOUBLE, "double_blocks.3.")), kohya_name, KOHYA)
    )
    factors, expected = {name: (update.down, update.up) for name, update in kohya.updates().items()}, kohya.data_hash
    parts = {
        "to_q": "qkv.0",
        "to_k": "qkv.1",
        "to_v": "qkv.2",
        "add_q_proj": "qkv.0",
        "add_k_proj": "qkv.1",
        "add_v_proj": "qkv.2",
    }

    def omi(name: str) -> str:
        last = name.rpartition(".")[2]
        side = "txt_attn" if last.startswith("add") else "img_attn"
        return f"transformer.double_blocks.3.{side}.{parts[last]}" if last in parts else f"transformer.{name}"

    for rename, endings in (
        ("transformer.{}".format, PEFT),
        (lambda name: "lora_transformer_" + name.replace(".", "_"), KOHYA),
        (omi, KOHYA),
        ("{}".format, DIFFUSERS),
    ):
        other = save_and_open(tmp_path, lora_tensors(factors, rename, endings))
        assert other.shapes == kohya.shapes
        assert other.data_hash == expected
    fused = lora_tensors(random_factors(shapes(FLUX_DOUBLE, "double_blocks.3.")), "base_model.model.{}".format, PEFT)
    assert save_and_open(tmp_path, fused).data_hash == expected


def test_xlabs_flux(tmp_path: Path) -> None:
    table = {
        "double_blocks.0.processor.qkv_lora1": (72, 24),
        "double_blocks.0.processor.proj_lora2": (24, 24),
        "single_blocks.1.processor.qkv_lora": (72, 24),
    }
    lora = save_and_open(
        tmp_path, lora_tensors(random_factors(shapes(table)), "{}".format, (".down.weight", ".up.weight"))
    )
    assert_same_as_converted(lora, FluxLoraLoaderMixin)


def test_flux2(tmp_path: Path) -> None:
    double = {
        "img_attn.qkv": (72, 24),
        "txt_attn.qkv": (72, 24),
        "img_attn.proj": (24, 24),
        "img_mlp.0": (144, 24),
        "img_mlp.2": (24, 72),
        "txt_mlp.0": (144, 24),
    }
    single = {"linear1": (216, 24), "linear2": (24, 96)}
    table = (
        shapes(double, "double_blocks.1.")
        | shapes(single, "single_blocks.2.")
        | shapes({"img_in": (24, 16), "single_stream_modulation.lin": (72, 24)})
    )
    lora = save_and_open(tmp_path, lora_tensors(random_factors(table), "diffusion_model.{}".format, PEFT))
    assert_same_as_converted(lora, Flux2LoraLoaderMixin)
    assert lora.parsed.architectures[0] == "flux2"
    table.pop("single_stream_modulation.lin")
    flattened = save_and_open(tmp_path, lora_tensors(random_factors(table), kohya_name, KOHYA, alpha=1.0))
    assert_same_as_converted(flattened, Flux2LoraLoaderMixin)


def test_hunyuan_video(tmp_path: Path) -> None:
    double = {
        "img_attn_qkv": (9216, 3072),
        "txt_attn_proj": (3072, 3072),
        "img_mlp.fc1": (12288, 3072),
        "txt_mlp.fc2": (3072, 12288),
        "txt_mod.linear": (18432, 3072),
    }
    single = {"linear1": (21504, 3072), "linear2": (3072, 15360), "modulation.linear": (9216, 3072)}
    table = (
        shapes(double, "double_blocks.0.")
        | shapes(single, "single_blocks.3.")
        | shapes({"txt_in.individual_token_refiner.blocks.1.mlp.fc1": (96, 24)})
    )
    lora = save_and_open(tmp_path, lora_tensors(random_factors(table, 1), "diffusion_model.{}".format, PEFT))
    assert_same_as_converted(lora, HunyuanVideoLoraLoaderMixin)
    assert lora.parsed.architectures[0] == "hunyuan-video"


@pytest.mark.parametrize(
    ("rename", "endings"),
    [("diffusion_model.{}".format, PEFT), (kohya_name, KOHYA), ("diffusion_model.{}".format, KOHYA)],
)
def test_z_image(tmp_path: Path, rename: Any, endings: tuple[str, str]) -> None:
    block = {
        "attention.to_q": (24, 24),
        "attention.to_out.0": (24, 24),
        "feed_forward.w1": (64, 24),
        "feed_forward.w2": (24, 64),
        "adaLN_modulation.0": (96, 16),
    }
    table = shapes(block, "layers.0.") | shapes(block, "noise_refiner.1.") | shapes({"cap_embedder.1": (24, 32)})
    lora = save_and_open(tmp_path, lora_tensors(random_factors(table), rename, endings, alpha=1.0))
    assert_same_as_converted(lora, ZImageLoraLoaderMixin)
    assert lora.parsed.architectures[0] == "z-image"
