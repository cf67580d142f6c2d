"""Updates of U-Nets against those that diffusers and peft make of the same file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from peft.tuners.lycoris_utils import LycorisLayer
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from loradex.retrieval.lora import Format, LoraFile
from tests.retrieval.lora.diffusers_updates import (
    EXACT,
    adapter_deltas,
    assert_same_updates,
    kohya_name,
    save_and_open,
)
from tests.retrieval.lora.models import (
    DIFFUSERS,
    KOHYA,
    PEFT,
    lora_tensors,
    random_factors,
    sd1_unet,
    sdxl_unet,
    weight_shapes,
)


def attention(model: nn.Module, names: tuple[str, ...] = ("attn", "proj_in", "ff")) -> dict[str, torch.Size]:
    return {name: shape for name, shape in weight_shapes(model).items() if any(part in name for part in names)}


def attn_processor(name: str) -> str:
    block, _, to = name.removesuffix(".0").rpartition(".")
    return f"{block}.processor.{to}"


@pytest.mark.parametrize(
    ("format", "tensors"),
    [
        (Format.DIFFUSERS, lambda factors: lora_tensors(factors, "unet.{}".format, DIFFUSERS)),
        (Format.PEFT, lambda factors: lora_tensors(factors, "unet.{}".format, PEFT)),
        (
            Format.ATTN_PROCESSOR,
            lambda factors: lora_tensors(
                factors, lambda name: "unet." + attn_processor(name), ("_lora.down.weight", "_lora.up.weight")
            ),
        ),
    ],
)
def test_diffusers_own_formats(tmp_path: Path, format: Format, tensors: Any) -> None:
    unet = sd1_unet()
    names = ("attn1", "attn2") if format is Format.ATTN_PROCESSOR else ("attn", "proj_in", "ff", "conv")
    lora = save_and_open(tmp_path, tensors(random_factors(attention(unet, names))))
    assert lora.format is format
    unet.load_lora_adapter(load_file(lora.path), adapter_name="x", prefix="unet")
    assert_same_updates(lora.updates(), adapter_deltas(unet))


def test_kohya_of_sd1_with_convolutions_and_text_encoder(tmp_path: Path) -> None:
    unet = sd1_unet()
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=10, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    )
    encoder = {
        name if name.startswith("text_model.") else f"text_model.{name}": shape
        for name, shape in weight_shapes(text).items()
    }
    tensors = lora_tensors(random_factors(weight_shapes(unet)), kohya_name, KOHYA, alpha=1.0)
    tensors |= lora_tensors(random_factors(encoder), lambda name: "lora_te_" + name.replace(".", "_"), KOHYA, alpha=3.0)
    lora = save_and_open(tmp_path, tensors)
    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(load_file(lora.path), unet_config=unet.config)
    unet.load_lora_adapter(
        {k: v for k, v in state.items() if k.startswith("unet.")},
        network_alphas=alphas,
        adapter_name="x",
        prefix="unet",
    )
    updates = lora.updates()
    assert_same_updates(
        {name: update for name, update in updates.items() if not name.startswith("text_encoder")}, adapter_deltas(unet)
    )
    for name in encoder:
        down, up = (tensors["lora_te_" + name.replace(".", "_") + end] for end in KOHYA)
        update = updates[f"text_encoder.{name}"]
        torch.testing.assert_close(update.up @ update.down, 1.5 * up @ down, **EXACT)


def sgm(name: str) -> str:
    """SGM's name of a module of SDXL's U-Net: the inverse of the translation, by the names in OneTrainer's table."""
    inner = {
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    place, _, rest = name.partition(".")
    if place not in ("down_blocks", "up_blocks", "mid_block"):
        return {
            "conv_in": "input_blocks.0.0",
            "conv_out": "out.2",
            "time_embedding.linear_1": "time_embed.0",
            "time_embedding.linear_2": "time_embed.2",
            "add_embedding.linear_1": "label_emb.0.0",
            "add_embedding.linear_2": "label_emb.0.2",
        }[name]
    if place == "mid_block":
        kind, number, tail = rest.split(".", 2)
        block = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{block}." + inner.get(tail, tail)
    level, kind, number, tail = rest.split(".", 3)
    first = 3 * int(level) + int(number) + (place == "down_blocks")
    side = "input_blocks" if place == "down_blocks" else "output_blocks"
    if kind == "downsamplers":
        return f"{side}.{3 * int(level) + 3}.0.op"
    if kind == "upsamplers":
        return f"{side}.{3 * int(level) + 2}.2.conv"
    return f"{side}.{first}.{int(kind == 'attentions')}.{inner.get(tail, tail)}"


def test_kohya_of_sdxl_with_sgm_names(tmp_path: Path) -> None:
    unet = sdxl_unet()
    lora = save_and_open(
        tmp_path,
        lora_tensors(random_factors(weight_shapes(unet)), lambda name: kohya_name(sgm(name)), KOHYA, alpha=1.0),
    )
    state, alphas = StableDiffusionXLLoraLoaderMixin.lora_state_dict(load_file(lora.path), unet_config=unet.config)
    unet.load_lora_adapter(state, network_alphas=alphas, adapter_name="x", prefix="unet")
    assert_same_updates(lora.updates(), adapter_deltas(unet))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"alpha_pattern": {"attn2.to_k": 6, "mid_block.attentions.0.proj_in": 7}, "rank_pattern": {"attn2.to_k": 3}},
    ],
)
def test_peft_folders(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = get_peft_model(
        sd1_unet(),
        LoraConfig(r=2, lora_alpha=5, target_modules=["to_k", "proj_in", "conv1"], init_lora_weights=False, **settings),
        "x",
    )
    model.save_pretrained(tmp_path)
    lora = LoraFile.open(tmp_path / "x" / "adapter_model.safetensors")
    assert lora.ranks == ([2, 3] if "rank_pattern" in settings else [2])
    assert_same_updates(
        lora.updates(), {name.removeprefix("base_model.model."): delta for name, delta in adapter_deltas(model).items()}
    )


@pytest.mark.parametrize(
    ("config", "format"),
    [
        (LoHaConfig(r=2, alpha=5, target_modules=["to_k", "conv1"], init_weights=False), Format.LOHA),
        (
            LoHaConfig(r=2, alpha=5, target_modules=["conv1"], init_weights=False, use_effective_conv2d=True),
            Format.LOHA,
        ),
        (LoKrConfig(r=2, alpha=5, target_modules=["to_k", "conv1"], init_weights=False), Format.LOKR),
        (
            LoKrConfig(
                r=2,
                alpha=5,
                target_modules=["to_k", "conv1"],
                init_weights=False,
                decompose_both=True,
                use_effective_conv2d=True,
            ),
            Format.LOKR,
        ),
        (LoKrConfig(r=64, alpha=5, target_modules=["to_k"], init_weights=False), Format.LOKR),
    ],
)
def test_lycoris_types_of_peft(tmp_path: Path, config: LoHaConfig | LoKrConfig, format: Format) -> None:
    model = get_peft_model(sd1_unet(), config, "x")
    model.save_pretrained(tmp_path)
    lora = LoraFile.open(tmp_path / "x" / "adapter_model.safetensors")
    assert lora.format is format
    theirs = {
        name: module.get_delta_weight("x") for name, module in model.named_modules() if isinstance(module, LycorisLayer)
    }
    assert_same_updates(
        lora.updates(), {name.removeprefix("base_model.model."): delta for name, delta in theirs.items()}
    )


def test_a_peft_config_in_the_header_may_name_the_component(tmp_path: Path) -> None:
    unet = sd1_unet()
    unet.add_adapter(LoraConfig(r=2, lora_alpha=5, target_modules=["to_q"], init_lora_weights=False), "x")
    state = {
        f"unet.{name.replace('.x.', '.')}": tensor for name, tensor in unet.state_dict().items() if "lora_" in name
    }
    metadata = {"unet.r": 2, "unet.lora_alpha": 5, "text_encoder.lora_alpha": 9}
    lora = save_and_open(tmp_path, state, {"lora_adapter_metadata": json.dumps(metadata)})
    assert_same_updates(lora.updates(), adapter_deltas(unet))
