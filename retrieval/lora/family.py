"""The family of the base model that a LoRA was trained on, told from the names and shapes of its layers.

Diffusion transformers have layer names of their own. The U-Nets share theirs: one fits if it has every layer of the
file in the file's shape. What tells them apart best is the input width of the keys and values of cross-attention, which
is the width of the text states. Metadata only choose among the families that fit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class UNet:
    """A U-Net of Stable Diffusion's kind, by the config of its ``UNet2DConditionModel`` in diffusers.

    Attributes:
        cross_attention_dim: width of the text states.
        block_out_channels: widths of the levels, from the input down.
        transformer_layers: how many transformer blocks each attention of a level has; 0 if it has no attention.
        mid_transformer_layers: likewise for the middle block.
    """

    cross_attention_dim: int
    block_out_channels: tuple[int, ...]
    transformer_layers: tuple[int, ...]
    mid_transformer_layers: int

    def has_layer(self, layer: str, shape: tuple[int, int]) -> bool:
        """Whether the U-Net has the layer in the shape (out, in)."""
        widths = self.block_out_channels
        name = layer.split(".")
        if name[0] in ("time_embedding", "add_embedding", "conv_in", "conv_out"):
            return any(side % widths[0] == 0 for side in shape)
        if name[0] == "mid_block":
            width, depth, inner = widths[-1], self.mid_transformer_layers, name[1:]
        elif name[0] in ("down_blocks", "up_blocks") and int(name[1]) < len(widths):
            level = int(name[1]) if name[0] == "down_blocks" else len(widths) - 1 - int(name[1])
            width, depth, inner = widths[level], self.transformer_layers[level], name[2:]
        else:
            return False
        if inner[0] != "attentions":
            return shape[0] == width
        if inner[2] == "transformer_blocks" and int(inner[3]) >= depth:
            return False
        return depth > 0 and shape == self.attention_shape(".".join(inner[4:]), width)

    def attention_shape(self, module: str, width: int) -> tuple[int, int]:
        """Shape (out, in) of a module of a transformer block, or of the projections around the blocks ("")."""
        if module in ("attn2.to_k", "attn2.to_v"):
            return width, self.cross_attention_dim
        return {"ff.net.0.proj": (8 * width, width), "ff.net.2": (width, 4 * width)}.get(module, (width, width))


UNETS: Final = {
    "sd1": UNet(768, (320, 640, 1280, 1280), (1, 1, 1, 0), 1),
    "sd2": UNet(1024, (320, 640, 1280, 1280), (1, 1, 1, 0), 1),
    "sdxl": UNet(2048, (320, 640, 1280), (0, 2, 10), 10),
    "sdxl-refiner": UNet(1280, (384, 768, 1536, 1536), (0, 4, 4, 0), 4),
    "mini-a": UNet(128, (96, 144), (1, 1), 1),
    "mini-b": UNet(128, (64, 112), (1, 1), 1),
}
TEXT_ENCODER_WIDTHS: Final = {  # of the first, the second ... text encoder; 0 if there is none
    "sd1": (768,),
    "sd2": (1024,),
    "sdxl": (768, 1280),
    "sdxl-refiner": (0, 1280),
    "mini-a": (128,),
    "mini-b": (128,),
    "flux1": (768,),
    "sd3": (768, 1280),
}
SINGLE_ENCODER_FAMILIES: Final = ("sd1", "sd2", "mini-a", "mini-b")
FAMILY_BY_VERSION: Final = {  # by the beginning of ss_base_model_version or modelspec.architecture
    "sd_v1": "sd1",
    "sd_v2": "sd2",
    "sdxl": "sdxl",
    "stable-diffusion-v1": "sd1",
    "stable-diffusion-v2": "sd2",
    "stable-diffusion-xl-v1-refiner": "sdxl-refiner",
    "stable-diffusion-xl": "sdxl",
    "stable-diffusion-3": "sd3",
    "sd3": "sd3",
    "flux1": "flux1",
    "flux-1": "flux1",
    "flux2": "flux2",
    "flux-2": "flux2",
    "chroma": "chroma",
    "lumina": "lumina2",
    "qwen": "qwen-image",
    "wan": "wan",
    "hunyuan-video": "hunyuan-video",
    "hunyuan_video": "hunyuan-video",
    "z-image": "z-image",
    "zimage": "z-image",
    "anima": "anima",
}


def find_families(
    shapes: Mapping[str, tuple[int, int]], architectures: Iterable[str] = ("unet",), modules: Iterable[str] = ()
) -> list[str]:
    """Find the families that fit some layers, the likeliest first.

    Args:
        shapes: (out, in) of the layers by their names in diffusers, without untranslated ones.
        architectures: those that the layers' names fit, the likeliest first.
        modules: the names of their modules in the file, for text encoders alone.
    """
    encoder_layers = {layer: shape for layer, shape in shapes.items() if layer.startswith("text_encoder")}
    model_layers = {layer: shape for layer, shape in shapes.items() if layer not in encoder_layers}
    if not model_layers:
        return find_encoder_families(encoder_layers, modules)
    families = []
    for architecture in architectures:
        if architecture != "unet":
            families.append(architecture)
            continue
        fitting = [name for name, unet in UNETS.items() if all(unet.has_layer(*item) for item in model_layers.items())]
        families += [name for name in fitting if encoders_fit(name, encoder_layers)] or fitting
    return families


def find_encoder_families(encoder_layers: Mapping[str, tuple[int, int]], modules: Iterable[str]) -> list[str]:
    """Find the families that fit a LoRA of text encoders alone; arguments as for ``find_families``."""
    if not encoder_layers:
        return []
    # kohya writes lora_te_ for the only text encoder, lora_te1_ for the first of two
    single = {module.startswith("lora_te_") for module in modules if module.startswith(("lora_te_", "lora_te1_"))}
    fitting = [name for name in TEXT_ENCODER_WIDTHS if encoders_fit(name, encoder_layers)]
    return [name for name in fitting if not single or (name in SINGLE_ENCODER_FAMILIES) in single]


def encoders_fit(family: str, encoder_layers: Mapping[str, tuple[int, int]]) -> bool:
    """Whether the text encoders of a family have all these layers."""
    return all(encoder_has_layer(TEXT_ENCODER_WIDTHS[family], *item) for item in encoder_layers.items())


def encoder_has_layer(widths: tuple[int, ...], layer: str, shape: tuple[int, int]) -> bool:
    """Whether one of the text encoders of these widths has the layer in the shape (out, in)."""
    component = layer.partition(".")[0]
    number = 0 if component == "text_encoder" else int(component[-1]) - 1
    return number < len(widths) and widths[number] in shape


def choose_family(families: list[str], metadata: Mapping[str, str]) -> str:
    """Choose among the families that fit: the one that the metadata name, else the likeliest, else ``unknown``."""
    named = family_in_metadata(metadata)
    return named if named in families else families[0] if families else UNKNOWN


def family_in_metadata(metadata: Mapping[str, str]) -> str | None:
    """The family that the trainer wrote into the header, if any."""
    for key in ("ss_base_model_version", "modelspec.architecture"):
        version = metadata.get(key, "").lower()
        for beginning in sorted(FAMILY_BY_VERSION, key=len, reverse=True):
            if version.startswith(beginning):
                return FAMILY_BY_VERSION[beginning]
    return None
