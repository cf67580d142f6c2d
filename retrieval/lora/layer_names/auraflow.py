"""The layer names of AuraFlow, which Pony 7 has too.

Layers have the names of diffusers' ``AuraFlowTransformer2DModel`` (4 joint and 32 single blocks of width 3072).

Sources: diffusers ``scripts/convert_aura_flow_to_diffusers.py``; ComfyUI ``comfy/ldm/aura/mmdit.py``.
"""

from typing import Final

from loradex.retrieval.lora.layer_names.flux import ADDED_QKV, ATTENTION_MODULES, QKV, SINGLE
from loradex.retrieval.lora.layer_names.rules import Architecture, Rule, keep, rename, swap_halves

JOINT: Final = "joint_transformer_blocks.#."
TEXT_ATTENTION: Final = (*ADDED_QKV, "attn.to_add_out")
IMAGE_ATTENTION: Final = (*QKV, "attn.to_out.0")
FEED_FORWARD: Final = (
    ("c_fc1", "linear_1"),
    ("c_fc2", "linear_2"),
    ("c_proj", "out_projection"),
    *((name, name) for name in ("linear_1", "linear_2", "out_projection")),
)


def attention(source: str, target: str, number: int, names: tuple[str, ...]) -> list[Rule]:
    """Rules for one of the two streams of attention, which are numbered: ``w1q``, ``w2q``."""
    return rename(source, target, zip((f"attn.w{number}{part}" for part in "qkvo"), names, strict=True))


def feed_forward(source: str, target: str) -> list[Rule]:
    """Rules for a feed-forward part, by its own names and diffusers'."""
    return rename(f"{source}.", f"{target}.", FEED_FORWARD) + keep(f"{target}.", "linear_1 linear_2 out_projection")


AURAFLOW: Final = Architecture(
    "auraflow",
    (
        *keep(JOINT, f"{ATTENTION_MODULES} norm1.linear norm1_context.linear"),
        *attention("double_layers.#.", JOINT, 1, TEXT_ATTENTION),
        *attention("double_layers.#.", JOINT, 2, IMAGE_ATTENTION),
        *feed_forward("double_layers.#.mlpX", f"{JOINT}ff"),
        *feed_forward("double_layers.#.mlpC", f"{JOINT}ff_context"),
        *rename("double_layers.#.", JOINT, [("modX.1", "norm1.linear"), ("modC.1", "norm1_context.linear")]),
        *keep(SINGLE, "attn.to_q attn.to_k attn.to_v attn.to_out.0 norm1.linear"),
        *attention("single_layers.#.", SINGLE, 1, IMAGE_ATTENTION),
        *feed_forward("single_layers.#.mlp", f"{SINGLE}ff"),
        *rename("single_layers.#.", SINGLE, [("modCX.1", "norm1.linear")]),
        *keep("", "pos_embed.proj context_embedder time_step_proj.linear_1 time_step_proj.linear_2"),
        *keep("", "norm_out.linear proj_out"),
        *rename("t_embedder.", "time_step_proj.", [("mlp.0", "linear_1"), ("mlp.2", "linear_2")]),
        *rename(
            "",
            "",
            [
                ("init_x_linear", "pos_embed.proj"),
                ("cond_seq_linear", "context_embedder"),
                ("final_linear", "proj_out"),
            ],
        ),
        Rule("modF.1", ("norm_out.linear",), swap_halves),
    ),
)
