"""The components that prefixes of modules stand for."""

import pytest
from diffusers import HiDreamImagePipeline, HunyuanVideoPipeline, PixArtSigmaPipeline, WanPipeline

from loradex.retrieval.lora.family import find_families
from loradex.retrieval.lora.layer_names import translate_names

LLAMA = ("model.layers.3.self_attn.q_proj", (4096, 4096))
CLIP = ("text_model.encoder.layers.3.mlp.fc1", (3072, 768))
T5 = ("encoder.block.7.layer.0.SelfAttention.q", (4096, 4096))
MODULES = {
    "hidream": ("double_stream_blocks.3.block.attn1.to_q", (2560, 2560)),
    "hunyuan-video": ("txt_in.individual_token_refiner.blocks.0.self_attn_proj", (3072, 3072)),
    "pixart": ("adaln_single.linear", (6912, 1152)),
}


@pytest.mark.parametrize(
    ("family", "pipeline", "prefix", "encoder", "component"),
    [
        ("hidream", HiDreamImagePipeline, "lora_te4_", LLAMA, "text_encoder_4"),
        ("hidream", HiDreamImagePipeline, "llama.", LLAMA, "text_encoder_4"),
        ("hidream", HiDreamImagePipeline, "lora_te3_", T5, "text_encoder_3"),
        ("hunyuan-video", HunyuanVideoPipeline, "lora_te1_language_model_", LLAMA, "text_encoder"),
        ("hunyuan-video", HunyuanVideoPipeline, "llama.language_model.", LLAMA, "text_encoder"),
        ("hunyuan-video", HunyuanVideoPipeline, "lora_te2_", CLIP, "text_encoder_2"),
        ("hunyuan-video", HunyuanVideoPipeline, "clip_l.", CLIP, "text_encoder_2"),
        ("pixart", PixArtSigmaPipeline, "lora_te_", T5, "text_encoder"),
        ("pixart", PixArtSigmaPipeline, "t5.", T5, "text_encoder"),
    ],
)
def test_text_encoders_have_their_names_in_the_pipeline(
    family: str, pipeline: type, prefix: str, encoder: tuple[str, tuple[int, int]], component: str
) -> None:
    layer, shape = encoder
    module = prefix + (layer.replace(".", "_") if prefix.endswith("_") else layer)
    model_module, model_shape = MODULES[family]
    names = translate_names({module: shape, f"transformer.{model_module}": model_shape})
    assert names.architectures[0] == family
    assert component in pipeline.__init__.__annotations__
    assert [layer for layer, _ in names.layers[module]] == [f"{component}.{layer.removeprefix('model.')}"]
    assert names.untranslated == []


def test_the_experts_of_wan_are_kept_apart() -> None:
    attention = {f"blocks.{i}.{attn}.to_q": (5120, 5120) for i in (0, 39) for attn in ("attn1", "attn2")}
    experts = {"transformer.": "", "transformer_2.": "transformer_2."}
    assert {prefix.removesuffix(".") for prefix in experts} <= set(WanPipeline.__init__.__annotations__)
    for prefixes in (experts, {"transformer_1.": "", "transformer_2.": "transformer_2."}):
        modules = {prefix + name: shape for prefix in prefixes for name, shape in attention.items()}
        names = translate_names(modules)
        layers = {layer: modules[module] for module, found in names.layers.items() for layer, _ in found}
        assert list(layers) == [target + name for target in prefixes.values() for name in attention]
        assert find_families(layers, names.architectures) == ["wan"]
    low = translate_names({"lora_transformer_2_blocks_0_attn1_to_q": (5120, 5120)})
    assert low.layers == {
        "lora_transformer_2_blocks_0_attn1_to_q": [("transformer_2.blocks.0.attn1.to_q", ((0, 5120),))]
    }


def test_joint_blocks_behind_a_second_prefix() -> None:
    names = translate_names({"lycoris_transformer_joint_transformer_blocks_0_attn_add_q_proj": (3072, 3072)})
    assert [layers[0][0] for layers in names.layers.values()] == ["joint_transformer_blocks.0.attn.add_q_proj"]
