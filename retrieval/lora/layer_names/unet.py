"""The layer names of Stable Diffusion's U-Nets: diffusers', and those of Stability AI (SGM), which kohya uses for SDXL.

Source: diffusers ``loaders/lora_conversion_utils.py``, ``_maybe_map_sgm_blocks_to_diffusers`` and
``_convert_unet_lora_key``.
"""

from typing import Final

from loradex.retrieval.lora.layer_names.rules import Architecture, Rule, keep, rename

LAYERS_PER_BLOCK: Final = 2
PROJECTIONS: Final = "to_q to_k to_v to_out.0"
TRANSFORMER_MODULES: Final = " ".join(
    [
        "proj_in proj_out",
        *(f"transformer_blocks.#.{attn}.{name}" for attn in ("attn1", "attn2") for name in PROJECTIONS.split()),
        "transformer_blocks.#.ff.net.0.proj transformer_blocks.#.ff.net.2",
    ]
)
RESNET_MODULES: Final = "conv1 conv2 time_emb_proj conv_shortcut"
SGM_RESNET_MODULES: Final = (
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
SGM_OUTER_MODULES: Final = (
    ("input_blocks.0.0", "conv_in"),
    ("out.2", "conv_out"),
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
)


def transformer_rules(source: str, target: str) -> list[Rule]:
    """Rules for a transformer; attention processors leave out the 0 of ``to_out.0``."""
    processor_names = [
        (f"transformer_blocks.#.{attn}.to_out", f"transformer_blocks.#.{attn}.to_out.0") for attn in ("attn1", "attn2")
    ]
    return rename(source, target, [*((name, name) for name in TRANSFORMER_MODULES.split()), *processor_names])


def diffusers_rules() -> list[Rule]:
    """Rules for diffusers' own names."""
    rules = keep(
        "",
        "conv_in conv_out time_embedding.linear_1 time_embedding.linear_2 add_embedding.linear_1 add_embedding.linear_2",
    )
    for block in ("down_blocks.#", "up_blocks.#", "mid_block"):
        rules += transformer_rules(f"{block}.attentions.#.", f"{block}.attentions.#.")
        rules += keep(f"{block}.resnets.#.", RESNET_MODULES)
    return rules + keep("down_blocks.#.downsamplers.0.", "conv") + keep("up_blocks.#.upsamplers.0.", "conv")


def sgm_rules() -> list[Rule]:
    """Rules for SGM's names, which number the blocks of a side through all levels, ``LAYERS_PER_BLOCK`` + 1 a level."""
    rules = rename("", "", SGM_OUTER_MODULES)
    stride = LAYERS_PER_BLOCK + 1
    for i in range(1, 4 * stride):
        block, layer = divmod(i - 1, stride)
        rules += sgm_block_rules(f"input_blocks.{i}.", f"down_blocks.{block}.", layer)
        rules += rename(f"input_blocks.{i}.0.", f"down_blocks.{block}.downsamplers.0.", [("op", "conv")])
    for i in range(4 * stride):
        block, layer = divmod(i, stride)
        rules += sgm_block_rules(f"output_blocks.{i}.", f"up_blocks.{block}.", layer)
        rules += rename(
            f"output_blocks.{i}.", f"up_blocks.{block}.upsamplers.0.", [("1.conv", "conv"), ("2.conv", "conv")]
        )
    for i, layer in ((0, 0), (2, 1)):
        rules += rename(f"middle_block.{i}.", f"mid_block.resnets.{layer}.", SGM_RESNET_MODULES)
    return rules + transformer_rules("middle_block.1.", "mid_block.attentions.0.")


def sgm_block_rules(source: str, target: str, layer: int) -> list[Rule]:
    """Rules for a block of SGM: a resnet, and the transformer after it."""
    return rename(f"{source}0.", f"{target}resnets.{layer}.", SGM_RESNET_MODULES) + transformer_rules(
        f"{source}1.", f"{target}attentions.{layer}."
    )


UNET: Final = Architecture("unet", (*diffusers_rules(), *sgm_rules()))
