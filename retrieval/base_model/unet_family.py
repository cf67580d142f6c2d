"""The family of a base model, told by the layers of its diffusion model, or by configurations where those are missing.

Layers come first: a configuration can be copied from another model, and a checkpoint in one file has none.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from loradex.retrieval.lora.family import UNETS, UNKNOWN, find_families
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.layer_names import translate_names

WEIGHT: Final = ".weight"
FAMILY_BY_CLASS: Final = {  # of the transformer, in diffusers
    "FluxTransformer2DModel": "flux1",
    "ChromaTransformer2DModel": "chroma",
    "Flux2Transformer2DModel": "flux2",
    "HunyuanVideoTransformer3DModel": "hunyuan-video",
    "SD3Transformer2DModel": "sd3",
    "QwenImageTransformer2DModel": "qwen-image",
    "WanTransformer3DModel": "wan",
    "ZImageTransformer2DModel": "z-image",
    "Lumina2Transformer2DModel": "lumina2",
    "LTXVideoTransformer3DModel": "ltx-video",
    "HiDreamImageTransformer2DModel": "hidream",
    "HunyuanVideo15Transformer3DModel": "hunyuan-video-1.5",
    "HunyuanImageTransformer2DModel": "hunyuan-image",
    "LTX2VideoTransformer3DModel": "ltx-2",
    "Krea2Transformer2DModel": "krea2",
    "PixArtTransformer2DModel": "pixart",
    "SanaTransformer2DModel": "sana",
    "CogVideoXTransformer3DModel": "cogvideox",
    "AuraFlowTransformer2DModel": "auraflow",
    "MochiTransformer3DModel": "mochi",
}


def family_of_layers(headers: Iterable[Header], prefix: str = "") -> str:
    """The family whose diffusion model has all layers behind ``prefix`` in some files, or ``unknown``."""
    return family_of_tensors(
        {name: info.shape for header in headers for name, info in header.tensors.items() if name.startswith(prefix)}
    )


def family_of_tensors(tensors: Mapping[str, Sequence[int]]) -> str:
    """The family whose diffusion model has all these layers, or ``unknown``.

    Args:
        tensors: the shapes of the diffusion model's tensors, by name.
    """
    shapes = {
        name.removesuffix(WEIGHT): (shape[0], math.prod(shape[1:]))
        for name, shape in tensors.items()
        if name.endswith(WEIGHT) and len(shape) > 1 and min(shape) > 0
    }
    if not shapes:
        return UNKNOWN
    names = translate_names(shapes)
    untranslated = set(names.untranslated)
    layers = {
        layer: (sum(end - start for start, end in rows), shapes[module][1])
        for module, parts in names.layers.items()
        if module not in untranslated
        for layer, rows in parts
    }
    families = find_families(layers, names.architectures) if layers else []
    return families[0] if families else UNKNOWN


def family_of_configs(class_name: str, config: Mapping[str, Any]) -> str:
    """The family that the class of a diffusion model and its configuration name, or ``unknown``."""
    if class_name in FAMILY_BY_CLASS:
        return FAMILY_BY_CLASS[class_name]
    width, levels = config.get("cross_attention_dim"), config.get("block_out_channels")
    fitting = (
        name
        for name, unet in UNETS.items()
        if (width, levels) == (unet.cross_attention_dim, list(unet.block_out_channels))
    )
    return next(fitting, UNKNOWN) if class_name == "UNet2DConditionModel" else UNKNOWN
