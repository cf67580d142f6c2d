"""Updates against those that diffusers and peft make of the same file, in models with the true names."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import (
    FluxLoraLoaderMixin,
    QwenImageLoraLoaderMixin,
    StableDiffusionLoraLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
    WanLoraLoaderMixin,
    ZImageLoraLoaderMixin,
)
from diffusers.loaders.lora_pipeline import Flux2LoraLoaderMixin, HunyuanVideoLoraLoaderMixin
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lycoris_utils import LycorisLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from loradex.retrieval.lora import Format, LayerUpdate, LoraFile
from tests.retrieval.lora.models import DIFFUSERS, KOHYA, PEFT, pairs, qwen, sd1_unet, sdxl_unet, wan, weights, write

EXACT: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def deltas(model: nn.Module, adapter: str = "x") -> dict[str, Tensor]:
    """What peft adds to each weight of a model."""
    return {
        name: module.get_delta_weight(adapter)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def same(ours: dict[str, LayerUpdate], theirs: dict[str, Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name, update in ours.items():
        torch.testing.assert_close(
            update.up @ update.down,
            theirs[name].float().flatten(1),
            msg=lambda text, name=name: f"{name}: {text}",
            **EXACT,
        )


def opened(tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> LoraFile:
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "x.safetensors", metadata)
    return LoraFile.open(tmp_path / "x.safetensors")


def attention(model: nn.Module, names: tuple[str, ...] = ("attn", "proj_in", "ff")) -> dict[str, torch.Size]:
    return {name: shape for name, shape in weights(model).items() if any(part in name for part in names)}


def attn_processor(name: str) -> str:
    block, _, to = name.removesuffix(".0").rpartition(".")
    return f"{block}.processor.{to}"


def flat(name: str) -> str:
    return "lora_unet_" + name.replace(".", "_")


@pytest.mark.parametrize(
    ("form", "tensors"),
    [
        (Format.DIFFUSERS, lambda made: write(made, "unet.{}".format, DIFFUSERS)),
        (Format.PEFT, lambda made: write(made, "unet.{}".format, PEFT)),
        (
            Format.ATTN_PROCESSOR,
            lambda made: write(
                made, lambda name: "unet." + attn_processor(name), ("_lora.down.weight", "_lora.up.weight")
            ),
        ),
    ],
)
def test_diffusers_own_formats(tmp_path: Path, form: Format, tensors: Any) -> None:
    unet = sd1_unet()
    names = ("attn1", "attn2") if form is Format.ATTN_PROCESSOR else ("attn", "proj_in", "ff", "conv")
    lora = opened(tmp_path, tensors(pairs(attention(unet, names))))
    assert lora.format is form
    unet.load_lora_adapter(load_file(lora.path), adapter_name="x", prefix="unet")
    same(lora.updates(), deltas(unet))


def test_kohya_of_sd1_with_convolutions_and_text_encoder(tmp_path: Path) -> None:
    unet = sd1_unet()
    text = CLIPTextModel(
        CLIPTextConfig(vocab_size=10, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    )
    encoder = {
        name if name.startswith("text_model.") else f"text_model.{name}": shape for name, shape in weights(text).items()
    }
    tensors = write(pairs(weights(unet)), flat, KOHYA, alpha=1.0)
    tensors |= write(pairs(encoder), lambda name: "lora_te_" + name.replace(".", "_"), KOHYA, alpha=3.0)
    lora = opened(tmp_path, tensors)
    state, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(load_file(lora.path), unet_config=unet.config)
    unet.load_lora_adapter(
        {k: v for k, v in state.items() if k.startswith("unet.")},
        network_alphas=alphas,
        adapter_name="x",
        prefix="unet",
    )
    updates = lora.updates()
    same({name: update for name, update in updates.items() if not name.startswith("text_encoder")}, deltas(unet))
    for name in encoder:
        down, up = (tensors["lora_te_" + name.replace(".", "_") + end] for end in KOHYA)
        update = updates[f"text_encoder.{name}"]
        torch.testing.assert_close(update.up @ update.down, 1.5 * up @ down, **EXACT)


def sgm(name: str) -> str:
    """A module of SDXL's U-Net as kohya names it: the inverse of what is tested, from the names in OneTrainer's table."""
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
    lora = opened(tmp_path, write(pairs(weights(unet)), lambda name: flat(sgm(name)), KOHYA, alpha=1.0))
    state, alphas = StableDiffusionXLLoraLoaderMixin.lora_state_dict(load_file(lora.path), unet_config=unet.config)
    unet.load_lora_adapter(state, network_alphas=alphas, adapter_name="x", prefix="unet")
    same(lora.updates(), deltas(unet))


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
    same(lora.updates(), {name.removeprefix("base_model.model."): delta for name, delta in deltas(model).items()})


@pytest.mark.parametrize(
    ("config", "form"),
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
def test_lycoris_types_of_peft(tmp_path: Path, config: LoHaConfig | LoKrConfig, form: Format) -> None:
    model = get_peft_model(sd1_unet(), config, "x")
    model.save_pretrained(tmp_path)
    lora = LoraFile.open(tmp_path / "x" / "adapter_model.safetensors")
    assert lora.format is form
    theirs = {
        name: module.get_delta_weight("x") for name, module in model.named_modules() if isinstance(module, LycorisLayer)
    }
    same(lora.updates(), {name.removeprefix("base_model.model."): delta for name, delta in theirs.items()})


def test_settings_in_the_header_may_name_the_component(tmp_path: Path) -> None:
    unet = sd1_unet()
    unet.add_adapter(LoraConfig(r=2, lora_alpha=5, target_modules=["to_q"], init_lora_weights=False), "x")
    state = {
        f"unet.{name.replace('.x.', '.')}": tensor for name, tensor in unet.state_dict().items() if "lora_" in name
    }
    metadata = {"unet.r": 2, "unet.lora_alpha": 5, "text_encoder.lora_alpha": 9}
    lora = opened(tmp_path, state, {"lora_adapter_metadata": json.dumps(metadata)})
    same(lora.updates(), deltas(unet))


def same_as_converted(lora: LoraFile, mixin: Any) -> None:
    """Our updates act on vectors as those that diffusers makes of a file for a transformer; it folds the scales into the factors."""
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
    ("rename", "ends", "alpha"),
    [
        (lambda name: flat(wan_name(name)), KOHYA, 1.0),
        (lambda name: "diffusion_model." + wan_name(name), PEFT, None),
        (lambda name: "diffusion_model." + wan_name(name), KOHYA, 1.0),
    ],
)
def test_wan(tmp_path: Path, rename: Any, ends: tuple[str, str], alpha: float | None) -> None:
    model = wan()
    made = pairs({name: shape for name, shape in weights(model).items() if name.startswith("blocks.")})
    lora = opened(tmp_path, write(made, rename, ends, alpha))
    model.load_lora_adapter(WanLoraLoaderMixin.lora_state_dict(load_file(lora.path)), adapter_name="x")
    same(lora.updates(), deltas(model))
    assert lora.family == "wan"


@pytest.mark.parametrize(
    ("rename", "ends"),
    [
        (flat, KOHYA),
        ("transformer.{}".format, PEFT),
        ("diffusion_model.{}".format, (".lora_A.default.weight", ".lora_B.default.weight")),
    ],
)
def test_qwen_image(tmp_path: Path, rename: Any, ends: tuple[str, str]) -> None:
    model = qwen()
    lora = opened(tmp_path, write(pairs(weights(model)), rename, ends, alpha=1.0 if ends == KOHYA else None))
    model.load_lora_adapter(QwenImageLoraLoaderMixin.lora_state_dict(load_file(lora.path)), adapter_name="x")
    same(lora.updates(), deltas(model))
    assert lora.family == "qwen-image"


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
    """Single blocks are of true size, as diffusers splits them by fixed numbers of rows."""
    single = {"linear1": (21504, 3072), "linear2": (3072, 15360), "modulation.lin": (9216, 3072)}
    made = pairs(shapes(FLUX_DOUBLE, "double_blocks.0.") | shapes(FLUX_DOUBLE, "double_blocks.11."), rank=3) | pairs(
        shapes(single, "single_blocks.7."), 1
    )
    if sparse:  # as kohya saves queries, keys and values that were trained apart
        for name in list(made):
            if "qkv" in name:
                made[name] = (made[name][0], torch.block_diag(*made[name][1][:, :1].split(24)))
    outside = {
        "final_layer.linear": (64, 24),
        "img_in": (24, 64),
        "txt_in": (24, 32),
        "time_in.in_layer": (24, 16),
        "vector_in.out_layer": (24, 24),
    }
    tensors = write(made, flat, KOHYA, alpha=2.0) | write(pairs(shapes(outside)), flat, KOHYA)
    lora = opened(tmp_path, tensors | write(pairs(shapes({"final_layer.adaLN_modulation.1": (48, 24)})), flat, KOHYA))
    same_as_converted(lora, FluxLoraLoaderMixin)
    assert lora.family == "flux1"


def test_other_flux_dialects_give_the_same_layers(tmp_path: Path) -> None:
    """BFL's names with dots, OneTrainer's with underscores and in parts, and diffusers': one LoRA, one hash."""
    kohya = opened(tmp_path, write(pairs(shapes(FLUX_DOUBLE, "double_blocks.3.")), flat, KOHYA))
    made, expected = {name: (update.down, update.up) for name, update in kohya.updates().items()}, kohya.data_hash
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

    for rename, ends in (
        ("transformer.{}".format, PEFT),
        (lambda name: "lora_transformer_" + name.replace(".", "_"), KOHYA),
        (omi, KOHYA),
        ("{}".format, DIFFUSERS),
    ):
        other = opened(tmp_path, write(made, rename, ends))
        assert other.shapes == kohya.shapes
        assert other.data_hash == expected
    fused = write(pairs(shapes(FLUX_DOUBLE, "double_blocks.3.")), "base_model.model.{}".format, PEFT)
    assert opened(tmp_path, fused).data_hash == expected


def test_xlabs_flux(tmp_path: Path) -> None:
    table = {
        "double_blocks.0.processor.qkv_lora1": (72, 24),
        "double_blocks.0.processor.proj_lora2": (24, 24),
        "single_blocks.1.processor.qkv_lora": (72, 24),
    }
    lora = opened(tmp_path, write(pairs(shapes(table)), "{}".format, (".down.weight", ".up.weight")))
    same_as_converted(lora, FluxLoraLoaderMixin)


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
    lora = opened(tmp_path, write(pairs(table), "diffusion_model.{}".format, PEFT))
    same_as_converted(lora, Flux2LoraLoaderMixin)
    assert lora.family == "flux2"
    table.pop("single_stream_modulation.lin")
    flattened = opened(tmp_path, write(pairs(table), flat, KOHYA, alpha=1.0))
    same_as_converted(flattened, Flux2LoraLoaderMixin)


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
    lora = opened(tmp_path, write(pairs(table, 1), "diffusion_model.{}".format, PEFT))
    same_as_converted(lora, HunyuanVideoLoraLoaderMixin)
    assert lora.family == "hunyuan-video"


@pytest.mark.parametrize(
    ("rename", "ends"), [("diffusion_model.{}".format, PEFT), (flat, KOHYA), ("diffusion_model.{}".format, KOHYA)]
)
def test_z_image(tmp_path: Path, rename: Any, ends: tuple[str, str]) -> None:
    block = {
        "attention.to_q": (24, 24),
        "attention.to_out.0": (24, 24),
        "feed_forward.w1": (64, 24),
        "feed_forward.w2": (24, 64),
        "adaLN_modulation.0": (96, 16),
    }
    table = shapes(block, "layers.0.") | shapes(block, "noise_refiner.1.") | shapes({"cap_embedder.1": (24, 32)})
    lora = opened(tmp_path, write(pairs(table), rename, ends, alpha=1.0))
    same_as_converted(lora, ZImageLoraLoaderMixin)
    assert lora.family == "z-image"
