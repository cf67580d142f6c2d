"""Tensor names as trainers write them, split into module, role and format."""

import pytest

from loradex.retrieval.lora.formats import Format, TensorName, split_tensor_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unet.a.to_q.lora.down.weight", TensorName("unet.a.to_q", "down", Format.DIFFUSERS)),
        (
            "text_encoder.a.q_proj.lora_linear_layer.up.weight",
            TensorName("text_encoder.a.q_proj", "up", Format.DIFFUSERS),
        ),
        (
            "a.attn1.processor.to_out_lora.up.weight",
            TensorName("a.attn1.processor.to_out", "up", Format.ATTN_PROCESSOR),
        ),
        (
            "double_blocks.0.processor.qkv_lora1.down.weight",
            TensorName("double_blocks.0.processor.qkv1", "down", Format.ATTN_PROCESSOR),
        ),
        ("base_model.model.a.lora_A.weight", TensorName("base_model.model.a", "down", Format.PEFT)),
        ("a.lora_B.default.weight", TensorName("a", "up", Format.PEFT, "default")),
        ("a.lora_A", TensorName("a", "down", Format.PEFT)),
        ("a.lora_B.bias", TensorName("a", "bias", Format.PEFT)),
        ("a.lora_magnitude_vector", TensorName("a", "magnitude", Format.PEFT)),
        ("a.lora_embedding_A", TensorName("a", "embedding", Format.PEFT)),
        ("lora_unet_a_b.lora_down.weight", TensorName("lora_unet_a_b", "down", Format.KOHYA)),
        ("lora_unet_a_b_lora_up.weight", TensorName("lora_unet_a_b", "up", Format.KOHYA)),
        ("lora_unet_a_b.lora_mid.weight", TensorName("lora_unet_a_b", "mid", Format.KOHYA)),
        ("lora_unet_a_b.alpha", TensorName("lora_unet_a_b", "alpha")),
        ("lora_unet_a_b.dora_scale", TensorName("lora_unet_a_b", "magnitude")),
        ("lycoris_a.hada_w1_b", TensorName("lycoris_a", "w1_b", Format.LOHA)),
        ("lycoris_a.hada_t2", TensorName("lycoris_a", "t2", Format.LOHA)),
        ("lycoris_a.lokr_w1", TensorName("lycoris_a", "w1", Format.LOKR)),
        ("lycoris_a.lokr_w2_a", TensorName("lycoris_a", "w2_a", Format.LOKR)),
        ("a.diff", TensorName("a", "diff", Format.FULL)),
        ("a.diff_b", TensorName("a", "bias")),
        ("unet:12:up", TensorName("unet:12", "up", Format.CLONEOFSIMO)),
        ("<s1>", TensorName("<s1>", "embedding")),
        ("bundle_emb.x.clip_l", TensorName("bundle_emb.x.clip_l", "embedding")),
        ("model.diffusion_model.input_blocks.0.0.weight", None),
        ("lora_A.weight", None),
        ("a.lora_A.b.c.weight", None),
        ("unet:12:rank", None),
        ("alpha", None),
        ("a" * 500 + ".alpha", None),
        ("", None),
    ],
)
def test_names_are_split(name: str, expected: TensorName | None) -> None:
    assert split_tensor_name(name) == expected
