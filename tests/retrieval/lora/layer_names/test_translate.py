"""Translated names against the layers of diffusers' models, and against diffusers' own conversion."""

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_unet_lora_key, _maybe_map_sgm_blocks_to_diffusers
from hypothesis import given, settings
from hypothesis import strategies as st

from loradex.retrieval.lora.layer_names import translate_names
from tests.retrieval.lora.models import MODELS, meta_model, weight_shapes


def shapes_of(name: str) -> dict[str, tuple[int, int]]:
    return {path: (shape[0], shape[1:].numel()) for path, shape in weight_shapes(meta_model(name)).items()}


@pytest.mark.parametrize("family", MODELS)
def test_every_module_is_found_under_its_name_with_underscores(family: str) -> None:
    shapes = shapes_of(family)
    flat = {f"lora_unet_{path.replace('.', '_')}": path for path in shapes}
    assert len(flat) == len(shapes)
    names = translate_names({name: shapes[path] for name, path in flat.items()})
    assert names.untranslated == []
    assert names.architectures[0] == ("unet" if family in ("sd1", "sd2", "sdxl") else family)
    assert {name: [layer for layer, _ in layers] for name, layers in names.layers.items()} == {
        name: [path] for name, path in flat.items()
    }


@pytest.mark.parametrize(
    "prefix", ["", "unet.", "base_model.model.", "base_model.model.unet.", "diffusion_model.", "lora_unet_unet_"]
)
def test_prefixes_are_stripped(prefix: str) -> None:
    path = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k"
    module = prefix + (path.replace(".", "_") if prefix.endswith("_") else path)
    assert translate_names({module: (320, 768)}).layers == {module: [(path, ((0, 320),))]}


def sgm_modules() -> list[str]:
    inner = ["in_layers_2", "emb_layers_1", "out_layers_3", "skip_connection"]
    outer = [
        "proj_in",
        "transformer_blocks_0_attn1_to_out_0",
        "transformer_blocks_9_attn2_to_k",
        "transformer_blocks_1_ff_net_0_proj",
        "transformer_blocks_1_ff_net_2",
    ]
    modules = [
        f"{side}_{i}_{j}_{name}"
        for side in ("input_blocks", "output_blocks")
        for i in range(1, 9)
        for j, names in enumerate((inner, outer))
        for name in names
    ]
    modules += [f"middle_block_{i}_{name}" for i, names in enumerate((inner, outer, inner)) for name in names]
    return [
        *modules,
        "input_blocks_3_0_op",
        "input_blocks_6_0_op",
        "output_blocks_2_2_conv",
        "output_blocks_5_2_conv",
        "input_blocks_0_0",
        "out_2",
        "time_embed_0",
        "label_emb_0_2",
    ]


def test_sgm_names_become_those_of_diffusers() -> None:
    class Config:
        layers_per_block = 2

    modules = [f"lora_unet_{name}" for name in sgm_modules()]
    names = translate_names(dict.fromkeys(modules, (8, 8)))
    assert names.untranslated == []
    for module in modules:
        (converted,) = _maybe_map_sgm_blocks_to_diffusers({f"{module}.lora_down.weight": torch.ones(1)}, Config)
        converted = (
            _convert_unet_lora_key(converted).replace(".processor.", ".").replace("to_out_lora", "to_out.0_lora")
        )
        assert names.layers[module] == [
            (converted.replace("_lora.down.weight", "").replace(".lora.down.weight", ""), ((0, 8),))
        ], module


def test_text_encoders_are_numbered() -> None:
    layer = "text_model.encoder.layers.3.self_attn.q_proj"
    flat = layer.replace(".", "_")
    for modules, component in (
        (
            [
                "lora_te_" + flat,
                "lora_te1_" + flat,
                "text_encoder." + layer,
                "clip_l." + layer,
                "text_encoders.clip_l.transformer." + layer,
            ],
            "text_encoder.",
        ),
        (
            [
                "lora_te2_" + flat,
                "text_encoder_2." + layer,
                "clip_g." + layer,
                "text_encoders.clip_g.transformer." + layer,
            ],
            "text_encoder_2.",
        ),
        (
            [
                "base_model.model." + layer,
                "text_encoder." + layer.removeprefix("text_model."),
                "text_encoder." + layer.replace("q_proj", "to_q"),
            ],
            "text_encoder.",
        ),
    ):
        for module in modules:
            assert translate_names({module: (768, 768)}).layers[module][0][0] == component + layer


def test_other_text_encoders() -> None:
    t5, flux = "encoder.block.7.layer.1.DenseReluDense.wi_0", {"lora_unet_double_blocks_0_img_attn_proj": (3072, 3072)}
    for modules, expected in (
        ({"lora_te3_" + t5.replace(".", "_"): (4, 4)}, "text_encoder_3." + t5),
        ({"lora_te3_" + t5.replace(".", "_"): (4, 4)} | flux, "text_encoder_2." + t5),
        ({"text_encoder_2." + t5: (4, 4)} | flux, "text_encoder_2." + t5),
        ({"lora_te_layers_0_mlp_gate_proj": (4, 4)}, "text_encoder.layers.0.mlp.gate_proj"),
        ({"text_encoder.model.layers.0.self_attn.o_proj": (4, 4)}, "text_encoder.layers.0.self_attn.o_proj"),
    ):
        names = translate_names(modules)
        assert names.layers[next(iter(modules))][0][0] == expected
        assert names.untranslated == []


def test_names_without_a_rule_are_kept() -> None:
    names = translate_names({"lora_unet_some_new_block_0_thing": (4, 4), "diffusion_model.other.0.thing": (4, 4)})
    assert [layers[0][0] for layers in names.layers.values()] == ["some_new_block_0_thing", "other.0.thing"]
    assert len(names.untranslated) == 2
    assert names.architectures == []


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab0123456789._#²", max_size=40), max_size=5, unique=True))
def test_any_name_is_translated_or_kept(modules: list[str]) -> None:
    assert set(translate_names(dict.fromkeys(modules, (3, 4))).layers) == set(modules)
