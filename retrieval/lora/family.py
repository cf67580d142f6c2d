"""The family of base models that a LoRA was fine-tuned from, told by the names and shapes of its layers.

Diffusion transformers are told by their names. U-Nets share theirs, so a family fits where it has every layer of the file in the
file's shape; the strongest sign is the input width of the cross-attention keys and values, the width of the text states.
Metadata only picks among the families that fit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class UNet:
    """One U-Net of Stable Diffusion's kind.

    Attributes:
        context: the width of the text states.
        widths: of the levels, from the input down.
        depths: how many transformer blocks an attention has, by level; 0 where there is none.
        middle: how many the middle block has.
    """

    context: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    middle: int

    def has(self, layer: str, shape: tuple[int, int]) -> bool:
        """Whether the U-Net has the layer in the shape (out, in)."""
        name = layer.split(".")
        if name[0] in ("time_embedding", "add_embedding", "conv_in", "conv_out"):
            return any(side % self.widths[0] == 0 for side in shape)
        if name[0] == "mid_block":
            width, depth, rest = self.widths[-1], self.middle, name[1:]
        elif name[0] in ("down_blocks", "up_blocks") and int(name[1]) < len(self.widths):
            level = int(name[1]) if name[0] == "down_blocks" else len(self.widths) - 1 - int(name[1])
            width, depth, rest = self.widths[level], self.depths[level], name[2:]
        else:
            return False
        if rest[0] != "attentions":
            return shape[0] == width
        if rest[2] == "transformer_blocks" and int(rest[3]) >= depth:
            return False
        return depth > 0 and shape == self.inside(".".join(rest[4:]), width)

    def inside(self, name: str, width: int) -> tuple[int, int]:
        """(out, in) of a module of an attention."""
        if name in ("attn2.to_k", "attn2.to_v"):
            return width, self.context
        return {"ff.net.0.proj": (8 * width, width), "ff.net.2": (width, 4 * width)}.get(name, (width, width))


UNETS: Final = {
    "sd1": UNet(768, (320, 640, 1280, 1280), (1, 1, 1, 0), 1),
    "sd2": UNet(1024, (320, 640, 1280, 1280), (1, 1, 1, 0), 1),
    "sdxl": UNet(2048, (320, 640, 1280), (0, 2, 10), 10),
    "sdxl-refiner": UNet(1280, (384, 768, 1536, 1536), (0, 4, 4, 0), 4),
    "mini-a": UNet(128, (96, 144), (1, 1), 1),
    "mini-b": UNet(128, (64, 112), (1, 1), 1),
}
# the widths of the text encoders
TEXTS: Final = {
    "sd1": (768,),
    "sd2": (1024,),
    "sdxl": (768, 1280),
    "sdxl-refiner": (0, 1280),
    "mini-a": (128,),
    "mini-b": (128,),
    "flux1": (768,),
    "sd3": (768, 1280),
}
ONE_ENCODER: Final = ("sd1", "sd2", "mini-a", "mini-b")
# what trainers write as ss_base_model_version or modelspec.architecture, by its beginning
VERSIONS: Final = {
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


def families_of(
    shapes: Mapping[str, tuple[int, int]], trees: Iterable[str] = ("unet",), modules: Iterable[str] = ()
) -> list[str]:
    """The families that fit, the likeliest first.

    Args:
        shapes: (out, in) of the layers by name, without those whose names no rule knows.
        trees: the architectures that their names fit.
        modules: the names that the file has for them; kohya's tell one text encoder from the first of two.
    """
    text = {layer: shape for layer, shape in shapes.items() if layer.startswith("text_encoder")}
    others = {layer: shape for layer, shape in shapes.items() if layer not in text}
    if not others:
        alone = {module.startswith("lora_te_") for module in modules if module.startswith(("lora_te_", "lora_te1_"))}
        fits = [name for name in TEXTS if text and all(encodes(TEXTS[name], *item) for item in text.items())]
        return [name for name in fits if not alone or (name in ONE_ENCODER) in alone]
    found = []
    for tree in trees:
        if tree != "unet":
            found.append(tree)
            continue
        fits = [name for name, unet in UNETS.items() if all(unet.has(*item) for item in others.items())]
        found += [name for name in fits if all(encodes(TEXTS[name], *item) for item in text.items())] or fits
    return found


def encodes(widths: tuple[int, ...], layer: str, shape: tuple[int, int]) -> bool:
    """Whether one of the text encoders of these widths has the layer in the shape."""
    component = layer.partition(".")[0]
    number = 0 if component == "text_encoder" else int(component[-1]) - 1
    return number < len(widths) and widths[number] in shape


def family_of(families: list[str], metadata: Mapping[str, str]) -> str:
    """The one that the metadata names among those that fit, else the likeliest, else ``unknown``."""
    named = named_family(metadata)
    return named if named in families else families[0] if families else UNKNOWN


def named_family(metadata: Mapping[str, str]) -> str | None:
    """The family that the trainer wrote into the header, if any."""
    for key in ("ss_base_model_version", "modelspec.architecture"):
        text = metadata.get(key, "").lower()
        for beginning in sorted(VERSIONS, key=len, reverse=True):
            if text.startswith(beginning):
                return VERSIONS[beginning]
    return None
