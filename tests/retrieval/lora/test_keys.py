"""Parts of updates told by the ends of tensor names, as the trainers write them."""

import pytest

from loradex.retrieval.lora.formats import Format, Part, split_name


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("unet.a.to_q.lora.down.weight", Part("unet.a.to_q", "down", Format.DIFFUSERS)),
        ("text_encoder.a.q_proj.lora_linear_layer.up.weight", Part("text_encoder.a.q_proj", "up", Format.DIFFUSERS)),
        ("a.attn1.processor.to_out_lora.up.weight", Part("a.attn1.processor.to_out", "up", Format.ATTN_PROCESSOR)),
        (
            "double_blocks.0.processor.qkv_lora1.down.weight",
            Part("double_blocks.0.processor.qkv1", "down", Format.ATTN_PROCESSOR),
        ),
        ("base_model.model.a.lora_A.weight", Part("base_model.model.a", "down", Format.PEFT)),
        ("a.lora_B.default.weight", Part("a", "up", Format.PEFT, "default")),
        ("a.lora_A", Part("a", "down", Format.PEFT)),
        ("a.lora_B.bias", Part("a", "bias", Format.PEFT)),
        ("a.lora_magnitude_vector", Part("a", "magnitude", Format.PEFT)),
        ("a.lora_embedding_A", Part("a", "embedding", Format.PEFT)),
        ("lora_unet_a_b.lora_down.weight", Part("lora_unet_a_b", "down", Format.KOHYA)),
        ("lora_unet_a_b_lora_up.weight", Part("lora_unet_a_b", "up", Format.KOHYA)),
        ("lora_unet_a_b.lora_mid.weight", Part("lora_unet_a_b", "mid", Format.KOHYA)),
        ("lora_unet_a_b.alpha", Part("lora_unet_a_b", "alpha")),
        ("lora_unet_a_b.dora_scale", Part("lora_unet_a_b", "magnitude")),
        ("lycoris_a.hada_w1_b", Part("lycoris_a", "w1_b", Format.LOHA)),
        ("lycoris_a.hada_t2", Part("lycoris_a", "t2", Format.LOHA)),
        ("lycoris_a.lokr_w1", Part("lycoris_a", "w1", Format.LOKR)),
        ("lycoris_a.lokr_w2_a", Part("lycoris_a", "w2_a", Format.LOKR)),
        ("a.diff", Part("a", "diff", Format.FULL)),
        ("a.diff_b", Part("a", "bias")),
        ("unet:12:up", Part("unet:12", "up", Format.CLONEOFSIMO)),
        ("<s1>", Part("<s1>", "embedding")),
        ("bundle_emb.x.clip_l", Part("bundle_emb.x.clip_l", "embedding")),
        ("model.diffusion_model.input_blocks.0.0.weight", None),
        ("lora_A.weight", None),
        ("a.lora_A.b.c.weight", None),
        ("unet:12:rank", None),
        ("alpha", None),
        ("a" * 500 + ".alpha", None),
        ("", None),
    ],
)
def test_names_are_split(name: str, part: Part | None) -> None:
    assert split_name(name) == part
