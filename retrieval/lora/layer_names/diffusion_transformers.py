"""The layer names of SD3, Qwen-Image, Wan, Z-Image, Lumina 2, Anima, Krea 2 and HiDream.

Sources: diffusers ``loaders/lora_conversion_utils.py`` and, for SD3, ``loaders/single_file_utils.py``; OneTrainer's
``convert_sd3_lora.py``.
"""

from fractions import Fraction
from typing import Final

from loradex.retrieval.lora.layer_names.flux import ADDED_QKV, DOUBLE, QKV, double_attention, fused_qkv
from loradex.retrieval.lora.layer_names.rules import (
    Architecture,
    Rule,
    keep,
    rename,
    split_grouped_qkv,
    split_qkv,
    swap_halves,
    swap_halves_of_two,
)

WAN_PROJECTIONS: Final = (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))
SD3_QKV2: Final = ("attn2.to_q", "attn2.to_k", "attn2.to_v")
SD3_EMBEDDERS: Final = tuple(
    (f"{source}_embedder.mlp.{number}", f"time_text_embed.{target}_embedder.linear_{i}")
    for source, target in (("t", "timestep"), ("y", "text"))
    for number, i in ((0, 1), (2, 2))
)
SD3: Final = Architecture(
    "sd3",
    (
        *double_attention(),
        *keep(
            DOUBLE,
            " ".join(
                (
                    *SD3_QKV2,
                    "attn2.to_out.0 ff.net.0.proj ff.net.2 ff_context.net.0.proj ff_context.net.2 norm1.linear norm1_context.linear",
                )
            ),
        ),
        *fused_qkv("joint_blocks.#.x_block.attn.qkv", DOUBLE, QKV),
        *fused_qkv("joint_blocks.#.x_block.attn2.qkv", DOUBLE, SD3_QKV2),
        *fused_qkv("joint_blocks.#.context_block.attn.qkv", DOUBLE, ADDED_QKV),
        *rename(
            "joint_blocks.#.x_block.",
            DOUBLE,
            [("attn.proj", "attn.to_out.0"), ("attn2.proj", "attn2.to_out.0"), ("adaLN_modulation.1", "norm1.linear")],
        ),
        *rename("joint_blocks.#.x_block.mlp.", f"{DOUBLE}ff.net.", [("fc1", "0.proj"), ("fc2", "2")]),
        *rename("joint_blocks.#.context_block.", DOUBLE, [("attn.proj", "attn.to_add_out")]),
        *rename("joint_blocks.#.context_block.mlp.", f"{DOUBLE}ff_context.net.", [("fc1", "0.proj"), ("fc2", "2")]),
        Rule("joint_blocks.#.context_block.adaLN_modulation.1", (f"{DOUBLE}norm1_context.linear",), swap_halves_of_two),
        *keep("", "pos_embed.proj context_embedder norm_out.linear proj_out"),
        *keep(
            "time_text_embed.",
            "timestep_embedder.linear_1 timestep_embedder.linear_2 text_embedder.linear_1 text_embedder.linear_2",
        ),
        *rename("", "", [("x_embedder.proj", "pos_embed.proj"), ("final_layer.linear", "proj_out"), *SD3_EMBEDDERS]),
        Rule("final_layer.adaLN_modulation.1", ("norm_out.linear",), swap_halves),
    ),
)

QWEN: Final = Architecture(
    "qwen-image",
    (
        *double_attention(),
        *keep(DOUBLE, "img_mlp.net.0.proj img_mlp.net.2 txt_mlp.net.0.proj txt_mlp.net.2 img_mod.1 txt_mod.1"),
        *keep(
            "",
            "img_in txt_in proj_out norm_out.linear time_text_embed.timestep_embedder.linear_1 time_text_embed.timestep_embedder.linear_2",
        ),
    ),
)

WAN_CONDITION: Final = "condition_embedder."


def wan_block(prefix: str) -> list[Rule]:
    """Rules for the blocks of Wan, or for those of VACE beside them, which control it."""
    return [
        *(rule for attn in ("attn1", "attn2") for rule in keep(f"{prefix}{attn}.", "to_q to_k to_v to_out.0")),
        *keep(prefix, "attn2.add_k_proj attn2.add_v_proj ffn.net.0.proj ffn.net.2"),
        *rename(f"{prefix}self_attn.", f"{prefix}attn1.", WAN_PROJECTIONS),
        *rename(
            f"{prefix}cross_attn.",
            f"{prefix}attn2.",
            [*WAN_PROJECTIONS, ("k_img", "add_k_proj"), ("v_img", "add_v_proj")],
        ),
        *rename(f"{prefix}ffn.", f"{prefix}ffn.net.", [("0", "0.proj"), ("2", "2")]),
    ]


WAN: Final = Architecture(
    "wan",
    (
        *wan_block("blocks.#."),
        *wan_block("vace_blocks.#."),
        *keep("vace_blocks.#.", "proj_in proj_out"),
        *rename("vace_blocks.#.", "vace_blocks.#.", [("before_proj", "proj_in"), ("after_proj", "proj_out")]),
        *keep(WAN_CONDITION, "time_proj image_embedder.ff.net.0.proj image_embedder.ff.net.2"),
        *(rule for kind in ("text", "time") for rule in keep(f"{WAN_CONDITION}{kind}_embedder.", "linear_1 linear_2")),
        *(
            rule
            for kind in ("text", "time")
            for rule in rename(
                f"{kind}_embedding.", f"{WAN_CONDITION}{kind}_embedder.", [("0", "linear_1"), ("2", "linear_2")]
            )
        ),
        *rename("img_emb.proj.", f"{WAN_CONDITION}image_embedder.ff.net.", [("1", "0.proj"), ("3", "2")]),
        *keep("", "proj_out patch_embedding vace_patch_embedding"),
        *rename("", "", [("time_projection.1", f"{WAN_CONDITION}time_proj"), ("head.head", "proj_out")]),
    ),
)

BLOCK_PREFIXES: Final = ("layers.#.", "noise_refiner.#.", "context_refiner.#.")
Z_IMAGE: Final = Architecture(
    "z-image",
    (
        *(
            rule
            for prefix in BLOCK_PREFIXES
            for rule in (
                *keep(prefix, "attention.to_q attention.to_k attention.to_v attention.to_out.0"),
                *keep(prefix, "feed_forward.w1 feed_forward.w2 feed_forward.w3 adaLN_modulation.0"),
                Rule(
                    f"{prefix}attention.qkv",
                    (f"{prefix}attention.to_q", f"{prefix}attention.to_k", f"{prefix}attention.to_v"),
                    split_qkv,
                    Fraction(3),
                ),
                *rename(prefix, prefix, [("attention.out", "attention.to_out.0")]),
            )
        ),
        *keep(
            "",
            "all_x_embedder.2-1 all_final_layer.2-1.linear all_final_layer.2-1.adaLN_modulation.1 cap_embedder.1 t_embedder.mlp.0 t_embedder.mlp.2",
        ),
        *rename(
            "final_layer.", "all_final_layer.2-1.", [("linear", "linear"), ("adaLN_modulation.1", "adaLN_modulation.1")]
        ),
        *rename("", "", [("x_embedder", "all_x_embedder.2-1")]),
    ),
)

LUMINA2: Final = Architecture(
    "lumina2",
    (
        *(
            rule
            for prefix in BLOCK_PREFIXES
            for rule in (
                *keep(
                    prefix,
                    "attn.to_q attn.to_k attn.to_v attn.to_out.0 norm1.linear feed_forward.linear_1 feed_forward.linear_2 feed_forward.linear_3",
                ),
                Rule(
                    f"{prefix}attention.qkv",
                    (f"{prefix}attn.to_q", f"{prefix}attn.to_k", f"{prefix}attn.to_v"),
                    split_grouped_qkv,
                ),
                *rename(prefix, prefix, [("attention.out", "attn.to_out.0"), ("adaLN_modulation.1", "norm1.linear")]),
                *rename(
                    f"{prefix}feed_forward.", f"{prefix}feed_forward.", [(f"w{i}", f"linear_{i}") for i in (1, 2, 3)]
                ),
            )
        ),
        *keep("time_caption_embed.", "timestep_embedder.linear_1 timestep_embedder.linear_2 caption_embedder.1"),
        *rename(
            "",
            "time_caption_embed.",
            [("t_embedder.mlp.0", "timestep_embedder.linear_1"), ("t_embedder.mlp.2", "timestep_embedder.linear_2")],
        ),
        *rename("", "time_caption_embed.", [("cap_embedder.1", "caption_embedder.1")]),
        *keep("", "x_embedder norm_out.linear_1 norm_out.linear_2"),
        *rename("final_layer.", "norm_out.", [("adaLN_modulation.1", "linear_1"), ("linear", "linear_2")]),
    ),
)

ANIMA_PROJECTIONS: Final = (("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("output_proj", "to_out.0"))
ANIMA_NORMS: Final = tuple(
    (f"adaln_modulation_{part}.{i}", f"norm{number}.linear_{i}")
    for number, part in enumerate(("self_attn", "cross_attn", "mlp"), 1)
    for i in (1, 2)
)
ANIMA_CONDITIONER: Final = "text_conditioner."


def anima_text_conditioner() -> list[Rule]:
    """Rules for what turns the states of the text encoder into those that Anima takes."""
    modules = [
        "out_proj",
        *(f"blocks.#.{attn}.{name}_proj" for attn in ("self_attn", "cross_attn") for name in "qkvo"),
        *(f"blocks.#.mlp.{number}" for number in (0, 2)),
    ]
    return [
        *keep(ANIMA_CONDITIONER, " ".join(modules)),
        *rename("llm_adapter.", ANIMA_CONDITIONER, [(name, name) for name in modules]),
    ]


ANIMA: Final = Architecture(
    "anima",
    (
        *(rule for attn in ("attn1", "attn2") for rule in keep(f"{DOUBLE}{attn}.", "to_q to_k to_v to_out.0")),
        *keep(DOUBLE, " ".join(("ff.net.0.proj ff.net.2", *(name for _, name in ANIMA_NORMS)))),
        *rename("blocks.#.self_attn.", f"{DOUBLE}attn1.", ANIMA_PROJECTIONS),
        *rename("blocks.#.cross_attn.", f"{DOUBLE}attn2.", ANIMA_PROJECTIONS),
        *rename("blocks.#.", DOUBLE, [("mlp.layer1", "ff.net.0.proj"), ("mlp.layer2", "ff.net.2"), *ANIMA_NORMS]),
        *rename(
            "final_layer.",
            "",
            [
                ("adaln_modulation.1", "norm_out.linear_1"),
                ("adaln_modulation.2", "norm_out.linear_2"),
                ("linear", "proj_out"),
            ],
        ),
        *keep("", "norm_out.linear_1 norm_out.linear_2 proj_out patch_embed.proj"),
        *keep("time_embed.t_embedder.", "linear_1 linear_2"),
        *rename("", "", [("x_embedder.proj.1", "patch_embed.proj")]),
        *anima_text_conditioner(),
        *rename("t_embedder.1.", "time_embed.t_embedder.", [("linear_1", "linear_1"), ("linear_2", "linear_2")]),
    ),
)

KREA2_PROJECTIONS: Final = (("wq", "to_q"), ("wk", "to_k"), ("wv", "to_v"), ("wo", "to_out.0"), ("gate", "to_gate"))
KREA2_BLOCKS: Final = (
    ("blocks.#.", DOUBLE),
    *((f"txtfusion.{kind}.#.", f"text_fusion.{kind}.#.") for kind in ("layerwise_blocks", "refiner_blocks")),
)
KREA2: Final = Architecture(
    "krea2",
    (
        *(
            rule
            for source, target in KREA2_BLOCKS
            for rule in (
                *keep(target, "attn.to_q attn.to_k attn.to_v attn.to_out.0 attn.to_gate ff.gate ff.up ff.down"),
                *rename(f"{source}attn.", f"{target}attn.", KREA2_PROJECTIONS),
                *rename(f"{source}mlp.", f"{target}ff.", [("gate", "gate"), ("up", "up"), ("down", "down")]),
            )
        ),
        *keep(
            "",
            "img_in final_layer.linear time_embed.linear_1 time_embed.linear_2 time_mod_proj txt_in.linear_1 txt_in.linear_2 text_fusion.projector",
        ),
        *rename("", "", [("first", "img_in"), ("last.linear", "final_layer.linear"), ("tproj.1", "time_mod_proj")]),
        *rename("tmlp.", "time_embed.", [("0", "linear_1"), ("2", "linear_2")]),
        *rename("txtmlp.", "txt_in.", [("1", "linear_1"), ("3", "linear_2")]),
        *rename("txtfusion.", "text_fusion.", [("projector", "projector")]),
    ),
)

HIDREAM_MODULES: Final = "attn1.to_q attn1.to_k attn1.to_v attn1.to_out ff_i.gate adaLN_modulation.1"
HIDREAM: Final = Architecture(
    "hidream",
    (
        *keep(
            "double_stream_blocks.#.block.",
            f"{HIDREAM_MODULES} attn1.to_q_t attn1.to_k_t attn1.to_v_t attn1.to_out_t",
        ),
        *keep("single_stream_blocks.#.block.", HIDREAM_MODULES),
        *keep("", "caption_projection.#.linear x_embedder.proj final_layer.linear final_layer.adaLN_modulation.1"),
        *(
            rule
            for name in ("p_embedder.pooled", "t_embedder.timestep")
            for rule in keep(f"{name}_embedder.", "linear_1 linear_2")
        ),
        *(
            rule
            for kind in ("double", "single")
            for part in ("ff_t", "ff_i.shared_experts", "ff_i.experts.#", "ff_i")
            for rule in keep(f"{kind}_stream_blocks.#.block.{part}.", "w1 w2 w3")
        ),
    ),
)
