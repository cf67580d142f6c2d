"""The layer names of transformers with double and single blocks: Flux 1 and 2, and Chroma.

Sources: diffusers ``loaders/lora_conversion_utils.py`` (kohya, XLabs, BFL, fal, Flux 2), kohya
``networks/lora_flux.py``, OneTrainer ``modules/util/convert/lora/convert_flux_lora.py`` (OMI's names number the parts
of a fused module: ``qkv.0``).
"""

from fractions import Fraction
from typing import Final

from loradex.retrieval.lora.layer_names.rules import (
    Architecture,
    Rule,
    keep,
    rename,
    split_qkv,
    split_qkv_mlp,
    swap_halves,
)

# of diffusers' names
DOUBLE: Final = "transformer_blocks.#."
SINGLE: Final = "single_transformer_blocks.#."
QKV: Final = ("attn.to_q", "attn.to_k", "attn.to_v")
ADDED_QKV: Final = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
ATTENTION_MODULES: Final = " ".join((*QKV, *ADDED_QKV, "attn.to_out.0", "attn.to_add_out"))
EMBEDDER_LINEARS: Final = (("in_layer", "linear_1"), ("out_layer", "linear_2"))


def with_prefix(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names with a prefix."""
    return tuple(prefix + name for name in names)


def fused_qkv(source: str, prefix: str, names: tuple[str, ...]) -> list[Rule]:
    """Rules for one module of queries, keys and values, and for OMI's names of its parts."""
    return [
        Rule(source, with_prefix(prefix, names), split_qkv),
        *rename(source + ".", prefix, [(str(i), name) for i, name in enumerate(names)]),
    ]


def double_attention() -> list[Rule]:
    """Rules for the attention of double blocks: diffusers', fused, BFL's (Hunyuan's differ by a dot only), XLabs'."""
    return [
        *keep(DOUBLE, ATTENTION_MODULES),
        *fused_qkv(DOUBLE + "attn.to_qkv", DOUBLE, QKV),
        *fused_qkv(DOUBLE + "attn.to_added_qkv", DOUBLE, ADDED_QKV),
        *fused_qkv("double_blocks.#.img_attn.qkv", DOUBLE, QKV),
        *fused_qkv("double_blocks.#.txt_attn.qkv", DOUBLE, ADDED_QKV),
        *fused_qkv("double_blocks.#.qkv1", DOUBLE, QKV),
        *fused_qkv("double_blocks.#.qkv2", DOUBLE, ADDED_QKV),
        *rename("double_blocks.#.", DOUBLE, [("img_attn.proj", "attn.to_out.0"), ("txt_attn.proj", "attn.to_add_out")]),
        *rename("double_blocks.#.", DOUBLE, [("proj1", "attn.to_out.0"), ("proj2", "attn.to_add_out")]),
    ]


def single_blocks() -> list[Rule]:
    """Rules for single blocks of Flux 1 and HunyuanVideo; their ``linear1`` holds attention and feed-forward part."""
    parts = (*QKV, "proj_mlp")
    return [
        *keep(SINGLE, " ".join((*parts, "proj_out", "norm.linear"))),
        Rule("single_blocks.#.linear1", with_prefix(SINGLE, parts), split_qkv_mlp, Fraction(7)),
        *rename("single_blocks.#.linear1.", SINGLE, [(str(i), name) for i, name in enumerate(parts)]),
        Rule("single_blocks.#.linear2", (SINGLE + "proj_out",), ratio=Fraction(1, 5)),
        *fused_qkv("single_blocks.#.qkv", SINGLE, QKV),
        *rename(
            "single_blocks.#.",
            SINGLE,
            [("proj", "proj_out"), ("modulation.lin", "norm.linear"), ("modulation.linear", "norm.linear")],
        ),
    ]


def feed_forward(numbers: tuple[str, str]) -> list[Rule]:
    """Rules for the feed-forward modules of double blocks, four times as wide as the blocks."""
    first, second = numbers
    rules = keep(
        DOUBLE, "ff.net.0.proj ff.net.2 ff_context.net.0.proj ff_context.net.2 norm1.linear norm1_context.linear"
    )
    for source, target in (("img", "ff"), ("txt", "ff_context")):
        rules.append(
            Rule(f"double_blocks.#.{source}_mlp.{first}", (f"{DOUBLE}{target}.net.0.proj",), ratio=Fraction(4))
        )
        rules.append(Rule(f"double_blocks.#.{source}_mlp.{second}", (f"{DOUBLE}{target}.net.2",), ratio=Fraction(1, 4)))
        norm = "norm1" if source == "img" else "norm1_context"
        rules += rename(f"double_blocks.#.{source}_mod.", f"{DOUBLE}{norm}.", [("lin", "linear"), ("linear", "linear")])
    return rules


def outer_modules(
    embedders: tuple[tuple[str, str], ...], parent: str, linears: tuple[tuple[str, str], ...]
) -> list[Rule]:
    """Rules for the embedders of time, guidance and text below ``parent``, and for the last layers."""
    rules = keep("", "norm_out.linear proj_out") + rename("", "", [("final_layer.linear", "proj_out")])
    rules.append(Rule("final_layer.adaLN_modulation.1", ("norm_out.linear",), swap_halves))
    for source, target in embedders:
        rules += keep(f"{parent}.{target}.", "linear_1 linear_2") + rename(f"{source}.", f"{parent}.{target}.", linears)
    return rules


TIME_EMBEDDERS: Final = (("time_in", "timestep_embedder"), ("guidance_in", "guidance_embedder"))
EMBEDDERS: Final = (*TIME_EMBEDDERS, ("vector_in", "text_embedder"))
INPUT_RULES: Final = (
    *keep("", "x_embedder context_embedder"),
    *rename("", "", [("img_in", "x_embedder"), ("img_in.proj", "x_embedder"), ("txt_in", "context_embedder")]),
)
FLUX1_RULES: Final = (
    *double_attention(),
    *feed_forward(("0", "2")),
    *single_blocks(),
    *outer_modules(EMBEDDERS, "time_text_embed", EMBEDDER_LINEARS),
    *INPUT_RULES,
)
FLUX1: Final = Architecture("flux1", FLUX1_RULES)

GUIDANCE: Final = "distilled_guidance_layer."
CHROMA: Final = Architecture(
    "chroma",
    (
        *(rule for rule in FLUX1_RULES if not any(part in rule.targets[0] for part in ("norm", "time_text_embed"))),
        *keep(GUIDANCE, "in_proj out_proj layers.#.linear_1 layers.#.linear_2"),
        *rename(
            GUIDANCE, GUIDANCE, [(f"layers.#.{source}", f"layers.#.{target}") for source, target in EMBEDDER_LINEARS]
        ),
    ),
)

FLUX2_FEED_FORWARD: Final = (("img_mlp", "ff"), ("txt_mlp", "ff_context"))
MODULATIONS: Final = ("double_stream_modulation_img", "double_stream_modulation_txt", "single_stream_modulation")
FLUX2: Final = Architecture(
    "flux2",
    (
        *double_attention(),
        *keep(DOUBLE, "ff.linear_in ff.linear_out ff_context.linear_in ff_context.linear_out"),
        *(
            Rule(f"double_blocks.#.{source}.0", (f"{DOUBLE}{target}.linear_in",), ratio=Fraction(6))
            for source, target in FLUX2_FEED_FORWARD
        ),
        *(
            Rule(f"double_blocks.#.{source}.2", (f"{DOUBLE}{target}.linear_out",), ratio=Fraction(1, 3))
            for source, target in FLUX2_FEED_FORWARD
        ),
        *keep(SINGLE, "attn.to_qkv_mlp_proj attn.to_out"),
        Rule("single_blocks.#.linear1", (SINGLE + "attn.to_qkv_mlp_proj",), ratio=Fraction(9)),
        Rule("single_blocks.#.linear2", (SINGLE + "attn.to_out",), ratio=Fraction(1, 4)),
        *outer_modules(TIME_EMBEDDERS, "time_guidance_embed", EMBEDDER_LINEARS),
        *INPUT_RULES,
        *keep("", " ".join(f"{name}.linear" for name in MODULATIONS)),
        *rename("", "", [(f"{name}.lin", f"{name}.linear") for name in MODULATIONS]),
    ),
)
