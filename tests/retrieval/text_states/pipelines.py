"""Small random Stable Diffusion pipelines of the true structure, their folders, and their checkpoints in one file."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.space.text_tower import load_tokenize
from tests.retrieval.base_model.base_files import UNET_LAYERS, sgm_layers, write_tensors

END = "<|endoftext|>"
FIRST_WIDTH, SECOND_WIDTH = 128, 192  # two and three heads, as all CLIPs have heads of 64
OPENAI = {"hidden_size": FIRST_WIDTH, "num_attention_heads": 2, "num_hidden_layers": 3, "hidden_act": "quick_gelu"}
OPEN_CLIP = {"hidden_size": SECOND_WIDTH, "num_attention_heads": 3, "num_hidden_layers": 4, "hidden_act": "gelu"}
LAYER_NAMES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}

Tensors = dict[str, Tensor]


@cache
def tokenizer(pad: str) -> CLIPTokenizer:
    """transformers' tokenizer with the vocabulary of open_clip's own tokenizer."""
    simple = load_tokenize().__globals__["_tokenizer"]
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": END}
    vocabulary = {names.get(token, token): number for token, number in simple.encoder.items()}
    return CLIPTokenizer(vocab=vocabulary, merges=list(simple.bpe_ranks), pad_token=pad, model_max_length=77)


def text_model(kind: type, seed: int, **sizes: Any) -> Any:
    """A text encoder all of whose tensors are random, biases and norms too."""
    width = sizes["hidden_size"]
    torch.manual_seed(seed)
    model = kind(CLIPTextConfig(**sizes, intermediate_size=3 * width, projection_dim=width)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def pipeline(family: str) -> Any:
    """A pipeline of sd1, sd2 or sdxl that encodes prompts as those of true size do."""
    sizes = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
    unet = UNet2DConditionModel(
        **sizes, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), mid_block_type=None
    )
    shared = {
        "vae": AutoencoderKL(**sizes),
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
    }
    if family == "sdxl":
        return StableDiffusionXLPipeline(
            **shared,
            tokenizer=tokenizer(END),
            tokenizer_2=tokenizer("!"),
            text_encoder=text_model(CLIPTextModel, 0, **OPENAI),
            text_encoder_2=text_model(CLIPTextModelWithProjection, 1, **OPEN_CLIP),
            add_watermarker=False,
        )
    return StableDiffusionPipeline(
        **shared,
        tokenizer=tokenizer(END if family == "sd1" else "!"),
        text_encoder=text_model(CLIPTextModel, 2, **(OPENAI if family == "sd1" else OPEN_CLIP)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def encode(pipe: Any, prompts: list[str]) -> Tensor:
    """What the pipeline gives its U-Net for prompts."""
    with torch.inference_mode():
        return pipe.encode_prompt(prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)[0]


def save_folder(pipe: Any, family: str, folder: Path, **options: Any) -> BaseModel:
    """Save the text encoders as diffusers does, beside some layers of the family's U-Net."""
    index = {"unet": ["diffusers", "UNet2DConditionModel"]}
    for component in ("text_encoder", "text_encoder_2"):
        if getattr(pipe, component, None) is not None:
            getattr(pipe, component).save_pretrained(folder / component, **options)
            index[component] = ["transformers", type(getattr(pipe, component)).__name__]
    write_tensors(folder / "unet" / "diffusion_pytorch_model.safetensors", UNET_LAYERS[family])
    (folder / "unet" / "config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps(index))
    return opened(folder, family)


def save_checkpoint(pipe: Any, family: str, path: Path, dtype: torch.dtype = torch.float32) -> BaseModel:
    """Save the text encoders in one file, as CompVis, Stability AI (SD 2) and SGM do, beside some of the U-Net."""
    weights = weights_of(pipe.text_encoder)
    if family == "sdxl":
        tensors = with_prefix("conditioner.embedders.0.transformer.text_model.", weights)
        second = open_clip_names(weights_of(pipe.text_encoder_2))
        tensors |= with_prefix("conditioner.embedders.1.model.", second)
    elif family == "sd2":  # with the last layer that diffusers' folders lack
        last = OPEN_CLIP["num_hidden_layers"]
        further = {
            name.replace(f".{last - 1}.", f".{last}."): torch.randn_like(tensor)
            for name, tensor in weights.items()
            if f"layers.{last - 1}." in name
        }
        tensors = with_prefix("cond_stage_model.model.", open_clip_names(weights | further))
    else:
        tensors = with_prefix("cond_stage_model.transformer.text_model.", weights)
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors |= {name: torch.zeros(shape) for name, shape in sgm_layers(family).items()}
    floats = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file({name: tensor.contiguous() for name, tensor in floats.items()}, path)
    return opened(path, family)


def opened(path: Path, family: str) -> BaseModel:
    base = BaseModel.open(path)
    assert base.family == family
    return base


def weights_of(model: Any) -> Tensors:
    """The tensors of a text model without ``text_model.``; of a model with a projection also ``text_projection``."""
    return {name.removeprefix("text_model."): tensor.detach() for name, tensor in model.state_dict().items()}


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def open_clip_names(tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors of transformers' text model as open_clip's ``CLIP`` names and joins them."""
    renamed = {
        "token_embedding.weight": tensors["embeddings.token_embedding.weight"],
        "positional_embedding": tensors["embeddings.position_embedding.weight"],
        "ln_final.weight": tensors["final_layer_norm.weight"],
        "ln_final.bias": tensors["final_layer_norm.bias"],
        "logit_scale": torch.tensor(4.6),
    }
    layers = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layers."))
    for layer in range(layers):
        ours, theirs = f"encoder.layers.{layer}.", f"transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            projections = [tensors[f"{ours}self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            renamed[f"{theirs}attn.in_proj_{kind}"] = torch.cat(projections)
            for name, other in LAYER_NAMES.items():
                renamed[f"{theirs}{other}.{kind}"] = tensors[f"{ours}{name}.{kind}"]
    if "text_projection.weight" in tensors:
        renamed["text_projection"] = tensors["text_projection.weight"].T
    return renamed
