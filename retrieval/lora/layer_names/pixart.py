"""The layer names of PixArt (alpha and sigma) and Sana, whose own names are the same but for the feed-forward part.

Layers have the names of diffusers' ``PixArtTransformer2DModel`` (28 blocks of width 1152) and
``SanaTransformer2DModel`` (20 or 60 blocks of width 2240, 28 of width 1152).

Sources: diffusers ``scripts/convert_pixart_sigma_to_diffusers.py`` and ``scripts/convert_sana_to_diffusers.py``;
OneTrainer ``convert_pixart_lora.py``, which numbers the parts of a fused module.
"""

from typing import Final

from loradex.retrieval.lora.layer_names.flux import DOUBLE, fused_qkv, with_prefix
from loradex.retrieval.lora.layer_names.rules import Architecture, RowRanges, Rule, consecutive_rows, keep, rename

PROJECTIONS: Final = ("to_q", "to_k", "to_v")
MLP: Final = (("mlp.0", "linear_1"), ("mlp.2", "linear_2"))
CAPTION: Final = (("fc1", "linear_1"), ("fc2", "linear_2"))


def split_kv(out: int, width: int) -> list[RowRanges]:
    """Keys and values of the same number of rows."""
    return consecutive_rows([out // 2] * 2, out)


def attention() -> list[Rule]:
    """Rules for self-attention and cross-attention."""
    keys_and_values = with_prefix(f"{DOUBLE}attn2.", PROJECTIONS[1:])
    return [
        *(rule for attn in ("attn1", "attn2") for rule in keep(f"{DOUBLE}{attn}.", "to_q to_k to_v to_out.0")),
        *fused_qkv("blocks.#.attn.qkv", f"{DOUBLE}attn1.", PROJECTIONS),
        Rule("blocks.#.cross_attn.kv_linear", keys_and_values, split_kv),
        *rename(
            "blocks.#.",
            DOUBLE,
            [
                ("attn.proj", "attn1.to_out.0"),
                ("cross_attn.q_linear", "attn2.to_q"),
                ("cross_attn.kv_linear.0", "attn2.to_k"),
                ("cross_attn.kv_linear.1", "attn2.to_v"),
                ("cross_attn.proj", "attn2.to_out.0"),
            ],
        ),
    ]


def outer_modules(patches: str, time: str, embedders: tuple[tuple[str, str], ...]) -> list[Rule]:
    """Rules for the other modules.

    Args:
        patches: diffusers' name of the embedder of patches.
        time: diffusers' name of the norm that all blocks share.
        embedders: (source, target) of the embedders below ``time``.
    """
    rules = [
        *keep("", f"{patches}.proj proj_out caption_projection.linear_1 caption_projection.linear_2 {time}.linear"),
        *rename("", "", [("x_embedder.proj", f"{patches}.proj"), ("final_layer.linear", "proj_out")]),
        *rename("", "", [("t_block.1", f"{time}.linear")]),
        *rename("y_embedder.y_proj.", "caption_projection.", CAPTION),
    ]
    for source, target in embedders:
        rules += keep(f"{time}.{target}.", "linear_1 linear_2") + rename(f"{source}.", f"{time}.{target}.", MLP)
    return rules


PIXART: Final = Architecture(
    "pixart",
    (
        *attention(),
        *keep(DOUBLE, "ff.net.0.proj ff.net.2"),
        *rename("blocks.#.mlp.", f"{DOUBLE}ff.net.", [("fc1", "0.proj"), ("fc2", "2")]),
        *outer_modules(
            "pos_embed",
            "adaln_single",
            (
                ("t_embedder", "emb.timestep_embedder"),
                ("csize_embedder", "emb.resolution_embedder"),
                ("ar_embedder", "emb.aspect_ratio_embedder"),
            ),
        ),
    ),
)
SANA_FEED_FORWARD: Final = tuple((f"{name}_conv.conv", f"conv_{name}") for name in ("inverted", "depth", "point"))
SANA: Final = Architecture(
    "sana",
    (
        *attention(),
        *keep(f"{DOUBLE}ff.", "conv_inverted conv_depth conv_point"),
        *rename("blocks.#.mlp.", f"{DOUBLE}ff.", SANA_FEED_FORWARD),
        *outer_modules(
            "patch_embed",
            "time_embed",
            (("t_embedder", "emb.timestep_embedder"), ("cfg_embedder", "guidance_embedder")),
        ),
        *keep("time_embed.timestep_embedder.", "linear_1 linear_2"),  # of Sana Sprint
    ),
)
