"""The layer names of CogVideoX and Mochi.

Layers have the names of diffusers' ``CogVideoXTransformer3DModel`` (30 blocks of width 1920 or 42 of 3072) and
``MochiTransformer3DModel`` (48 blocks of width 3072, 1536 for text).

Sources: those classes; diffusers ``loaders/single_file_utils.py``
(``convert_mochi_transformer_checkpoint_to_diffusers``).
"""

from fractions import Fraction
from typing import Final

from loradex.retrieval.lora.layer_names.flux import DOUBLE, fused_qkv
from loradex.retrieval.lora.layer_names.rules import Architecture, Rule, keep, rename, swap_halves

COGVIDEOX: Final = Architecture(
    "cogvideox",
    (
        *keep(DOUBLE, "attn1.to_q attn1.to_k attn1.to_v attn1.to_out.0 ff.net.0.proj ff.net.2"),
        *keep(DOUBLE, "norm1.linear norm2.linear"),
        *keep("", "patch_embed.proj patch_embed.text_proj norm_out.linear proj_out"),
        *keep("", "time_embedding.linear_1 time_embedding.linear_2 ofs_embedding.linear_1 ofs_embedding.linear_2"),
    ),
)

SOURCE: Final = "blocks.#."
TEXT_QKV: Final = ("attn1.add_q_proj", "attn1.add_k_proj", "attn1.add_v_proj")
IMAGE_QKV: Final = ("attn1.to_q", "attn1.to_k", "attn1.to_v")
MOCHI: Final = Architecture(
    "mochi",
    (
        *keep(DOUBLE, " ".join((*IMAGE_QKV, *TEXT_QKV, "attn1.to_out.0 attn1.to_add_out"))),
        *keep(DOUBLE, "ff.net.0.proj ff.net.2 ff_context.net.0.proj ff_context.net.2"),
        *keep(DOUBLE, "norm1.linear norm1_context.linear norm1_context.linear_1"),
        *fused_qkv(f"{SOURCE}attn.qkv_x", DOUBLE, IMAGE_QKV),
        *fused_qkv(f"{SOURCE}attn.qkv_y", DOUBLE, TEXT_QKV),
        *rename(
            SOURCE,
            DOUBLE,
            [
                ("attn.proj_x", "attn1.to_out.0"),
                ("attn.proj_y", "attn1.to_add_out"),
                ("mlp_x.w2", "ff.net.2"),
                ("mlp_y.w2", "ff_context.net.2"),
                ("mod_x", "norm1.linear"),
            ],
        ),
        # the gate comes first there, and last in diffusers
        Rule(f"{SOURCE}mlp_x.w1", (f"{DOUBLE}ff.net.0.proj",), swap_halves),
        Rule(f"{SOURCE}mlp_y.w1", (f"{DOUBLE}ff_context.net.0.proj",), swap_halves),
        # the last block only scales the text states
        Rule(f"{SOURCE}mod_y", (f"{DOUBLE}norm1_context.linear",), ratio=Fraction(2)),
        Rule(f"{SOURCE}mod_y", (f"{DOUBLE}norm1_context.linear_1",), ratio=Fraction(1, 2)),
        *keep("time_embed.", "timestep_embedder.linear_1 timestep_embedder.linear_2 caption_proj"),
        *keep("time_embed.pooler.", "to_kv to_q to_out"),
        *keep("", "patch_embed.proj norm_out.linear proj_out"),
        *rename("t5_y_embedder.", "time_embed.pooler.", [(name, name) for name in ("to_kv", "to_q", "to_out")]),
        *rename(
            "",
            "",
            [
                ("x_embedder.proj", "patch_embed.proj"),
                ("t_embedder.mlp.0", "time_embed.timestep_embedder.linear_1"),
                ("t_embedder.mlp.2", "time_embed.timestep_embedder.linear_2"),
                ("t5_yproj", "time_embed.caption_proj"),
                ("final_layer.linear", "proj_out"),
            ],
        ),
        Rule("final_layer.mod", ("norm_out.linear",), swap_halves),
    ),
)
