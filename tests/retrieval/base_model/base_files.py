"""Base models on disk: a few of their layers, with true names and shapes; all weights are zeros."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

Shapes = dict[str, tuple[int, ...]]
CROSS = "transformer_blocks.{}.attn2.to_k.weight"
UNET_LAYERS: dict[str, Shapes] = {  # by their names in diffusers
    "sd1": {f"down_blocks.0.attentions.0.{CROSS.format(0)}": (320, 768), "conv_in.weight": (320, 4, 3, 3)},
    "sd2": {f"down_blocks.0.attentions.0.{CROSS.format(0)}": (320, 1024), "conv_in.weight": (320, 4, 3, 3)},
    "sdxl": {f"down_blocks.2.attentions.1.{CROSS.format(9)}": (1280, 2048), "conv_in.weight": (320, 4, 3, 3)},
    "sdxl-refiner": {f"down_blocks.1.attentions.0.{CROSS.format(3)}": (768, 1280), "conv_in.weight": (384, 4, 3, 3)},
}
SGM_NAMES = {
    "conv_in.": "input_blocks.0.0.",
    "down_blocks.0.attentions.0.": "input_blocks.1.1.",
    "down_blocks.1.attentions.0.": "input_blocks.4.1.",
    "down_blocks.2.attentions.1.": "input_blocks.8.1.",
}
CLIP: Shapes = {"text_model.embeddings.token_embedding.weight": (9, 8), "text_model.final_layer_norm.weight": (8,)}
OPEN_CLIP: Shapes = {"token_embedding.weight": (9, 8), "positional_embedding": (7, 8), "ln_final.weight": (8,)}
VAE: Shapes = {"encoder.conv_in.weight": (4, 3, 3, 3), "decoder.conv_out.weight": (3, 4, 3, 3)}
ENCODERS: dict[str, Shapes] = {
    "sd1": {f"cond_stage_model.transformer.{name}": shape for name, shape in CLIP.items()},
    "sd2": {f"cond_stage_model.model.{name}": shape for name, shape in OPEN_CLIP.items()},
    "sdxl": {f"conditioner.embedders.0.transformer.{name}": shape for name, shape in CLIP.items()}
    | {f"conditioner.embedders.1.model.{name}": shape for name, shape in OPEN_CLIP.items()},
    "sdxl-refiner": {f"conditioner.embedders.0.model.{name}": shape for name, shape in OPEN_CLIP.items()},
}


def sgm_layers(family: str) -> Shapes:
    renamed = {}
    for name, shape in UNET_LAYERS[family].items():
        beginning = next(beginning for beginning in SGM_NAMES if name.startswith(beginning))
        renamed[f"model.diffusion_model.{SGM_NAMES[beginning]}{name.removeprefix(beginning)}"] = shape
    return renamed


def checkpoint_shapes(family: str) -> Shapes:
    vae = {f"first_stage_model.{name}": shape for name, shape in VAE.items()}
    return sgm_layers(family) | ENCODERS[family] | vae


def write_tensors(path: Path, shapes: Mapping[str, Sequence[int]]) -> Path:
    """A safetensors file of F16 zeros, which take no room on most disks."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
    return path


def write_checkpoint(path: Path, family: str = "sd1") -> Path:
    """A checkpoint in one file."""
    return write_tensors(path, checkpoint_shapes(family))


def write_folder(folder: Path, family: str = "sd1", variant: str = "") -> Path:
    """A folder of diffusers."""
    ending = f".{variant}.safetensors" if variant else ".safetensors"
    index = {
        "_class_name": "StableDiffusionPipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }
    parts = {
        "unet": ("diffusion_pytorch_model", UNET_LAYERS[family]),
        "vae": ("diffusion_pytorch_model", VAE),
        "text_encoder": ("model", CLIP),
    }
    for name, (stem, shapes) in parts.items():
        write_tensors(folder / name / f"{stem}{ending}", shapes)
        (folder / name / "config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def change_weight(path: Path) -> Path:
    """Make the first number of the first tensor another."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        file.seek(8 + length + 1)
        file.write(b"\x3c")
    return path
