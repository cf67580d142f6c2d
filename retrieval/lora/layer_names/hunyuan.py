"""The layer names of HunyuanVideo, HunyuanVideo 1.5 and HunyuanImage 2.1.

Their own names and those that ComfyUI gives them after Flux differ in the parts of a block and in the embedders;
OneTrainer numbers the parts of a fused module. Layers have the names of diffusers' ``HunyuanVideoTransformer3DModel``
(20 double and 40 single blocks of width 3072), ``HunyuanVideo15Transformer3DModel`` (54 double blocks of width 2048)
and ``HunyuanImageTransformer2DModel`` (20 and 40 of width 3584).

Sources: diffusers ``loaders/lora_conversion_utils.py`` (``_convert_hunyuan_video_lora_to_diffusers``),
``scripts/convert_hunyuan_video1_5_to_diffusers.py`` and ``scripts/convert_hunyuan_image_to_diffusers.py``; OneTrainer
``convert_hunyuan_video_lora.py``; ComfyUI ``comfy/ldm/hunyuan_video/model.py``.
"""

from fractions import Fraction
from typing import Final

from loradex.retrieval.lora.layer_names.flux import (
    ADDED_QKV,
    DOUBLE,
    EMBEDDER_LINEARS,
    QKV,
    SINGLE,
    double_attention,
    feed_forward,
    fused_qkv,
    outer_modules,
    single_blocks,
)
from loradex.retrieval.lora.layer_names.rules import Architecture, Rule, keep, rename

REFINER: Final = "context_embedder.token_refiner.refiner_blocks.#."
SOURCE_REFINER: Final = "txt_in.individual_token_refiner.blocks.#."
CONTEXT: Final = "context_embedder.time_text_embed."
MLP_LINEARS: Final = (("mlp.0", "linear_1"), ("mlp.2", "linear_2"))
LINEARS: Final = (("linear_1", "linear_1"), ("linear_2", "linear_2"))
PARTS: Final = "qkv"
BYT5: Final = tuple((f"byt5_in.fc{i}", f"context_embedder_2.linear_{i}") for i in (1, 2, 3))
VISION: Final = (("vision_in.proj.1", "image_embedder.linear_1"), ("vision_in.proj.3", "image_embedder.linear_2"))


def time_embedders(parent: str, sources: tuple[tuple[str, str], ...]) -> list[Rule]:
    """Rules for the embedders of time and guidance below ``parent``; ``sources`` are (source, target)."""
    rules = []
    for source, target in sources:
        rules += keep(f"{parent}.{target}.", "linear_1 linear_2")
        rules += rename(f"{source}.", f"{parent}.{target}.", (*MLP_LINEARS, *EMBEDDER_LINEARS))
    return rules


def more_feed_forward() -> list[Rule]:
    """Rules for the feed-forward modules of double blocks by ComfyUI's and OneTrainer's names."""
    return [
        rule
        for source, target in (("img", "ff"), ("txt", "ff_context"))
        for rule in (
            Rule(f"double_blocks.#.{source}_mlp.0", (f"{DOUBLE}{target}.net.0.proj",), ratio=Fraction(4)),
            Rule(f"double_blocks.#.{source}_mlp.fc0", (f"{DOUBLE}{target}.net.0.proj",), ratio=Fraction(4)),
            Rule(f"double_blocks.#.{source}_mlp.2", (f"{DOUBLE}{target}.net.2",), ratio=Fraction(1, 4)),
        )
    ]


def token_refiner() -> list[Rule]:
    """Rules for the refiner of text states and what is before it."""
    return [
        *keep("", "x_embedder.proj context_embedder.proj_in"),
        *rename("", "", [("img_in.proj", "x_embedder.proj"), ("txt_in.input_embedder", "context_embedder.proj_in")]),
        *keep(REFINER, "attn.to_q attn.to_k attn.to_v attn.to_out.0 ff.net.0.proj ff.net.2 norm_out.linear"),
        *fused_qkv(f"{SOURCE_REFINER}self_attn.qkv", REFINER, QKV),
        *rename(
            SOURCE_REFINER,
            REFINER,
            [("self_attn.proj", "attn.to_out.0"), ("adaLN_modulation.1", "norm_out.linear")],
        ),
        *rename(
            f"{SOURCE_REFINER}mlp.",
            f"{REFINER}ff.net.",
            [("fc0", "0.proj"), ("fc1", "0.proj"), ("fc2", "2"), ("0", "0.proj"), ("2", "2")],
        ),
        *(
            rule
            for source, target, linears in (
                ("t_embedder", "timestep_embedder", (*MLP_LINEARS, *LINEARS, *EMBEDDER_LINEARS)),
                ("c_embedder", "text_embedder", (*LINEARS, *EMBEDDER_LINEARS)),
            )
            for rule in (
                *keep(f"{CONTEXT}{target}.", "linear_1 linear_2"),
                *rename(f"txt_in.{source}.", f"{CONTEXT}{target}.", linears),
            )
        ),
    ]


def separate_attention() -> list[Rule]:
    """Rules for queries, keys and values that are modules of their own, in the checkpoints of 1.5 and HunyuanImage."""
    return [
        *rename("double_blocks.#.", DOUBLE, zip((f"img_attn.{part}" for part in PARTS), QKV, strict=True)),
        *rename("double_blocks.#.", DOUBLE, zip((f"txt_attn.{part}" for part in PARTS), ADDED_QKV, strict=True)),
    ]


DOUBLE_BLOCKS: Final = (*double_attention(), *feed_forward(("fc1", "fc2")), *more_feed_forward())
HUNYUAN_VIDEO: Final = Architecture(
    "hunyuan-video",
    (
        *DOUBLE_BLOCKS,
        *single_blocks(),
        *outer_modules((("vector_in", "text_embedder"),), "time_text_embed", EMBEDDER_LINEARS),
        *time_embedders("time_text_embed", (("time_in", "timestep_embedder"), ("guidance_in", "guidance_embedder"))),
        *token_refiner(),
    ),
)
HUNYUAN_VIDEO_15: Final = Architecture(
    "hunyuan-video-1.5",
    (
        *DOUBLE_BLOCKS,
        *separate_attention(),
        *outer_modules((), "", ()),
        *time_embedders("time_embed", (("time_in", "timestep_embedder"), ("time_r_in", "timestep_embedder_r"))),
        *token_refiner(),
        *(rule for name, target in (*BYT5, *VISION) for rule in (*keep("", target), *rename("", "", [(name, target)]))),
    ),
)
HUNYUAN_IMAGE: Final = Architecture(
    "hunyuan-image",
    (
        *DOUBLE_BLOCKS,
        *separate_attention(),
        *single_blocks(),
        *rename("single_blocks.#.linear1.", SINGLE, zip((*PARTS, "mlp"), (*QKV, "proj_mlp"), strict=True)),
        *rename("single_blocks.#.linear2.", SINGLE, [("fc", "proj_out")]),
        *outer_modules((), "", ()),
        *time_embedders(
            "time_guidance_embed",
            (
                ("time_in", "timestep_embedder"),
                ("time_r_in", "timestep_embedder_r"),
                ("guidance_in", "guidance_embedder"),
            ),
        ),
        *token_refiner(),
        *(rule for name, target in BYT5 for rule in (*keep("", target), *rename("", "", [(name, target)]))),
    ),
)
