"""The true shapes of the layers of diffusion transformers, from diffusers' classes and the public configurations.

``python -m scripts.layer_sizes`` writes retrieval/lora/layer_names/sizes.json, by which a LoRA's family is told. Models
are built on the meta device, without memory for their weights. Sources of the configurations:
``transformer/config.json`` of the repositories on the hub that the comments name.
"""

import json
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import diffusers
import torch
from torch import nn

from loradex.retrieval.lora.layer_names.sizes import SIZES_FILE

WAN_1_3B: Final = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
SD3_MEDIUM: Final = {"num_attention_heads": 24, "caption_projection_dim": 1536, "num_layers": 24}
SANA_600M: Final = {
    "num_attention_heads": 36,
    "num_cross_attention_heads": 16,
    "cross_attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "num_layers": 28,
}
LTX23: Final = ("gated_attn", "cross_attn_mod", "audio_gated_attn", "audio_cross_attn_mod")
COSMOS_2B: Final = {"num_attention_heads": 16, "num_layers": 28, "concat_padding_mask": True}
MODELS: Final[dict[str, list[tuple[str, dict[str, Any]]]]] = {  # class and configuration of each size, by family
    "flux1": [("FluxTransformer2DModel", {"guidance_embeds": True})],
    "chroma": [("ChromaTransformer2DModel", {})],
    "flux2": [
        ("Flux2Transformer2DModel", {}),  # FLUX.2-dev
        (  # FLUX.2-klein-4B
            "Flux2Transformer2DModel",
            {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
        ),
        (  # FLUX.2-klein-9B
            "Flux2Transformer2DModel",
            {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
        ),
    ],
    "hunyuan-video": [("HunyuanVideoTransformer3DModel", {"guidance_embeds": True})],
    "hunyuan-video-1.5": [("HunyuanVideo15Transformer3DModel", {})],
    "hunyuan-image": [("HunyuanImageTransformer2DModel", {"guidance_embeds": True, "use_meanflow": True})],
    "sd3": [
        ("SD3Transformer2DModel", SD3_MEDIUM),  # stable-diffusion-3-medium
        ("SD3Transformer2DModel", SD3_MEDIUM | {"dual_attention_layers": tuple(range(13))}),  # 3.5-medium
        (  # 3.5-large
            "SD3Transformer2DModel",
            {"num_attention_heads": 38, "caption_projection_dim": 2432, "num_layers": 38},
        ),
        ("SD3Transformer2DModel", {"dual_attention_layers": (0,)}),  # the class's own defaults
    ],
    "qwen-image": [("QwenImageTransformer2DModel", {})],
    "wan": [
        ("WanTransformer3DModel", {"image_dim": 1280, "added_kv_proj_dim": 5120}),  # Wan2.1 14B, Wan2.2 A14B
        ("WanTransformer3DModel", WAN_1_3B | {"image_dim": 1280, "added_kv_proj_dim": 1536}),  # Wan2.1 1.3B
        ("WanTransformer3DModel", {"num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30}),  # Wan2.2 TI2V-5B
        ("WanVACETransformer3DModel", {"image_dim": 1280, "added_kv_proj_dim": 5120}),
        ("WanVACETransformer3DModel", WAN_1_3B | {"vace_layers": list(range(0, 30, 2))}),
    ],
    "z-image": [("ZImageTransformer2DModel", {})],
    "lumina2": [
        ("Lumina2Transformer2DModel", {"cap_feat_dim": 2304}),  # Lumina-Image-2.0
        ("Lumina2Transformer2DModel", {}),  # the class's own defaults
    ],
    "ltx-video": [
        ("LTXVideoTransformer3DModel", {}),  # LTX-Video 2B
        (  # LTX-Video 0.9.7 13B
            "LTXVideoTransformer3DModel",
            {"attention_head_dim": 128, "num_layers": 48, "cross_attention_dim": 4096},
        ),
    ],
    "ltx-2": [
        ("LTX2VideoTransformer3DModel", {}),
        ("LTX2VideoTransformer3DModel", dict.fromkeys(LTX23, True)),  # LTX-2.3
    ],
    "anima": [("CosmosTransformer3DModel", COSMOS_2B)],  # as Cosmos-Predict2-2B
    "krea2": [("Krea2Transformer2DModel", {})],
    "hidream": [
        (  # HiDream-I1
            "HiDreamImageTransformer2DModel",
            {"patch_size": 2, "in_channels": 16, "caption_channels": [4096, 4096], "llama_layers": [31] * 48},
        )
    ],
    "pixart": [("PixArtTransformer2DModel", {"caption_channels": 4096, "use_additional_conditions": True})],
    "sana": [
        ("SanaTransformer2DModel", {}),  # 1.6B
        ("SanaTransformer2DModel", {"num_layers": 60}),  # 4.8B
        ("SanaTransformer2DModel", SANA_600M),
        ("SanaTransformer2DModel", {"guidance_embeds": True}),  # Sprint 1.6B
        ("SanaTransformer2DModel", SANA_600M | {"guidance_embeds": True}),
    ],
    "cogvideox": [
        ("CogVideoXTransformer3DModel", {}),  # 2b
        ("CogVideoXTransformer3DModel", {"num_attention_heads": 48, "num_layers": 42, "ofs_embed_dim": 512}),  # 5b, 1.5
    ],
    "auraflow": [("AuraFlowTransformer2DModel", {})],
    "mochi": [("MochiTransformer3DModel", {})],
}
# models of no family here, whose blocks have the names and widths of one: depth alone tells them apart
OTHERS: Final[dict[str, list[tuple[str, dict[str, Any]]]]] = {
    "Bria": [("BriaTransformer2DModel", {"num_layers": 8, "num_single_layers": 28})],  # BRIA-3.2
    "Bria FIBO": [("BriaFiboTransformer2DModel", {"num_layers": 8, "num_single_layers": 38})],
    "LongCat-Image": [("LongCatImageTransformer2DModel", {"num_layers": 10, "num_single_layers": 20})],
    "Ovis-Image": [("OvisImageTransformer2DModel", {})],
    "Qwen-Image 2.1": [("QwenImage21Transformer2DModel", {})],
    "Nucleus-Image": [("NucleusMoEImageTransformer2DModel", {})],
    "MiniMax-Music 3": [("MiniMaxMusic3Transformer1DModel", {})],
}
# further components that LoRAs of a family change, with the beginning of their layers' names
COMPONENTS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "anima": ("text_conditioner.", "AnimaTextConditioner", {}),
}
# the layers whose input or output is the latent picture, which variants for editing and for control widen
INPUTS: Final = re.compile(
    r"(x_embedder|img_in|pos_embed\.proj|patch_embed\.proj|patch_embedding|vace_patch_embedding|x_embedder\.proj|proj_in|audio_proj_in|all_x_embedder\.2-1)"
)
OUTPUTS: Final = re.compile(r"(proj_out|audio_proj_out|final_layer\.linear|all_final_layer\.2-1\.linear)")
LAYERS: Final = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.|$)")
BLOCK: Final = re.compile(r"(.+?)\.(\d+)\.")


@contextmanager
def without_weights() -> Iterator[None]:
    """Build models without memory for weights, and without the time to draw them."""
    with torch.device("meta"), patch.object(nn.Linear, "reset_parameters"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of diffusers itself
        yield


def weight_shapes(class_name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Shape (out, in) of each weight of a model that a LoRA may change; kernels are flattened."""
    with without_weights():
        model = getattr(diffusers, class_name)(**config)
    modules = ((name, m) for name, m in model.named_modules() if isinstance(m, LAYERS))
    return {name: (m.weight.shape[0], math.prod(m.weight.shape[1:])) for name, m in modules}


def describe_model(shapes: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The entry of a model: how many blocks it has of each kind, and its layers (``#`` for numbers) by shape."""
    blocks: dict[str, int] = {}
    layers: defaultdict[tuple[int, int], dict[str, None]] = defaultdict(dict)
    for name, (out, width) in shapes.items():
        if block := BLOCK.match(name):
            blocks[block[1]] = max(blocks.get(block[1], 0), int(block[2]) + 1)
        shape = (0 if OUTPUTS.fullmatch(name) else out, 0 if INPUTS.fullmatch(name) else width)
        layers[shape][NUMBER.sub("#", name)] = None
    return {
        "blocks": {kind: count for kind, count in blocks.items() if count > 1},
        "layers": {f"{out}x{width}": " ".join(names) for (out, width), names in layers.items()},
    }


def shapes_of_family(name: str, class_name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Shape (out, in) of each layer of a size of a family, with those of its further components."""
    shapes = weight_shapes(class_name, config)
    if name in COMPONENTS:
        prefix, component, settings = COMPONENTS[name]
        shapes |= {prefix + layer: shape for layer, shape in weight_shapes(component, settings).items()}
    return shapes


def describe_models() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The whole document."""
    return {
        part: {
            name: [describe_model(shapes_of_family(name, class_name, config)) for class_name, config in sizes]
            for name, sizes in models.items()
        }
        for part, models in (("families", MODELS), ("others", OTHERS))
    }


def main() -> None:
    """Write the file."""
    SIZES_FILE.write_text(json.dumps(describe_models(), indent=1) + "\n")


if __name__ == "__main__":
    main()
