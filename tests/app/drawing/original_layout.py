"""Pipelines of diffusers as checkpoints in one file, with the names of CompVis, SGM and Stability AI's SD 3."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.retrieval.text_states.pipelines import open_clip_names, weights_of, with_prefix

Tensors = dict[str, Tensor]
Rules = tuple[tuple[str, str], ...]  # regular expressions and what they become

DIFFUSION = "model.diffusion_model."
RESNET: Rules = (
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.conv_shortcut\.", ".skip_connection."),
)
UNET: Rules = (
    (r"^time_embedding\.linear_1", "time_embed.0"),
    (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^add_embedding\.linear_1", "label_emb.0.0"),
    (r"^add_embedding\.linear_2", "label_emb.0.2"),
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
)
VAE: Rules = (
    (r"conv_shortcut", "nin_shortcut"),
    (r"mid_block\.resnets\.0", "mid.block_1"),
    (r"mid_block\.resnets\.1", "mid.block_2"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"encoder\.down_blocks\.(\d)\.resnets", r"encoder.down.\1.block"),
    (r"encoder\.down_blocks\.(\d)\.downsamplers\.0", r"encoder.down.\1.downsample"),
    (r"conv_norm_out", "norm_out"),
    (r"group_norm", "norm"),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
)
SD3: Rules = (
    (r"^pos_embed\.proj\.", "x_embedder.proj."),
    (r"^pos_embed\.pos_embed$", "pos_embed"),
    (r"^time_text_embed\.timestep_embedder\.linear_1", "t_embedder.mlp.0"),
    (r"^time_text_embed\.timestep_embedder\.linear_2", "t_embedder.mlp.2"),
    (r"^time_text_embed\.text_embedder\.linear_1", "y_embedder.mlp.0"),
    (r"^time_text_embed\.text_embedder\.linear_2", "y_embedder.mlp.2"),
    (r"^transformer_blocks\.", "joint_blocks."),
    (r"\.attn\.to_out\.0\.", ".x_block.attn.proj."),
    (r"\.attn\.to_add_out\.", ".context_block.attn.proj."),
    (r"\.norm1\.linear\.", ".x_block.adaLN_modulation.1."),
    (r"\.norm1_context\.linear\.", ".context_block.adaLN_modulation.1."),
    (r"\.ff\.net\.0\.proj\.", ".x_block.mlp.fc1."),
    (r"\.ff\.net\.2\.", ".x_block.mlp.fc2."),
    (r"\.ff_context\.net\.0\.proj\.", ".context_block.mlp.fc1."),
    (r"\.ff_context\.net\.2\.", ".context_block.mlp.fc2."),
    (r"^proj_out\.", "final_layer.linear."),
    (r"^norm_out\.linear\.", "final_layer.adaLN_modulation.1."),
)
SD3_JOINED = {
    "x_block.attn.qkv": ("to_q", "to_k", "to_v"),
    "context_block.attn.qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
}


def renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def unet_name(name: str, layers: int, attention_above: Mapping[int, bool]) -> str:
    """A layer of the U-Net; ``attention_above`` says which up blocks attend."""
    step = layers + 1
    match = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.", name)
    if match:
        way, block, kind, number = match[1], int(match[2]), match[3], int(match[4])
        rest = name[match.end() :]
        if kind == "downsamplers":
            return f"input_blocks.{step * (block + 1)}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"output_blocks.{step * block + layers}.{1 + attention_above[block]}.{rest}"
        place = step * block + number
        inner = renamed("." + rest, RESNET)[1:] if kind == "resnets" else rest
        beginning = f"input_blocks.{place + 1}" if way == "down" else f"output_blocks.{place}"
        return f"{beginning}.{0 if kind == 'resnets' else 1}.{inner}"
    match = re.match(r"mid_block\.(resnets|attentions)\.(\d)\.", name)
    if match:
        rest = name[match.end() :]
        if match[1] == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * int(match[2])}.{renamed('.' + rest, RESNET)[1:]}"
    return renamed(name, UNET)


def unet_tensors(unet: Any) -> Tensors:
    attends = {number: "CrossAttn" in kind for number, kind in enumerate(unet.config.up_block_types)}
    layers = unet.config.layers_per_block
    return {DIFFUSION + unet_name(name, layers, attends): tensor for name, tensor in unet.state_dict().items()}


def vae_tensors(vae: Any) -> Tensors:
    levels, tensors = len(vae.config.block_out_channels), {}
    for name, tensor in vae.state_dict().items():
        name = re.sub(r"decoder\.up_blocks\.(\d)\.", lambda match: f"decoder.up.{levels - 1 - int(match[1])}.", name)
        name = name.replace("resnets", "block") if name.startswith("decoder.up.") else name
        name = renamed(name, VAE).replace("upsamplers.0", "upsample")
        is_attention = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        tensors[f"first_stage_model.{name}"] = tensor[:, :, None, None] if is_attention else tensor
    return tensors


def sd3_tensors(transformer: Any) -> Tensors:
    state, tensors = transformer.state_dict(), {}
    last = transformer.config.num_layers - 1
    swapped = (f"transformer_blocks.{last}.norm1_context.linear.", "norm_out.linear.")
    for name, tensor in state.items():
        if not any(f".attn.{part}." in name for parts in SD3_JOINED.values() for part in parts):
            halves = tensor.chunk(2)[::-1] if name.startswith(swapped) else (tensor,)
            tensors[DIFFUSION + renamed(name, SD3)] = torch.cat(halves) if len(halves) > 1 else tensor
    for block in range(last + 1):
        for joined, parts in SD3_JOINED.items():
            for kind in ("weight", "bias"):
                rows = [state[f"transformer_blocks.{block}.attn.{part}.{kind}"] for part in parts]
                tensors[f"{DIFFUSION}joint_blocks.{block}.{joined}.{kind}"] = torch.cat(rows)
    return tensors


def text_tensors(pipe: Any, family: str) -> Tensors:
    first = weights_of(pipe.text_encoder)
    if family == "sd1":
        return with_prefix("cond_stage_model.transformer.text_model.", first)
    if family == "sd2":  # with the last layer that diffusers' folders lack
        last = pipe.text_encoder.config.num_hidden_layers
        above = f"layers.{last - 1}."
        further = {name.replace(above, f"layers.{last}."): -tensor for name, tensor in first.items() if above in name}
        return with_prefix("cond_stage_model.model.", open_clip_names(first | further))
    second = weights_of(pipe.text_encoder_2)
    if family == "sdxl":
        tensors = with_prefix("conditioner.embedders.0.transformer.text_model.", first)
        return tensors | with_prefix("conditioner.embedders.1.model.", open_clip_names(second))
    first.pop("text_projection.weight")
    projection = {"text_encoders.clip_g.transformer.text_projection.weight": second.pop("text_projection.weight")}
    tensors = with_prefix("text_encoders.clip_l.transformer.text_model.", first)
    return tensors | with_prefix("text_encoders.clip_g.transformer.text_model.", second) | projection


def save_one_file(pipe: Any, family: str, path: Path, further: Mapping[str, Tensor] | None = None) -> Path:
    """Save a pipeline of sd1, sd2, sdxl or sd3 in one file."""
    denoiser = sd3_tensors(pipe.transformer) if family == "sd3" else unet_tensors(pipe.unet)
    tensors = denoiser | vae_tensors(pipe.vae) | text_tensors(pipe, family) | dict(further or {})
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path
