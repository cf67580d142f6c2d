"""The text encoders of the families, by which LoRAs of text encoders are told."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

Shape = tuple[int, int]  # (out, in)
CLIP: Final = "text_model.encoder.layers."
LANGUAGE_MODEL: Final = "layers."
CLIP_OUTSIDE: Final = ("text_projection", "text_model.embeddings.")


@dataclass(frozen=True, slots=True)
class Encoder:
    """A text encoder.

    Attributes:
        blocks: the beginning of its blocks' names in transformers.
        width: of its hidden states.
        depth: its number of blocks.
    """

    blocks: str
    width: int
    depth: int

    def has_layer(self, layer: str, shape: Shape) -> bool:
        """Whether it has the layer, named within the encoder, in the shape (out, in)."""
        if not layer.startswith(self.blocks):
            return self.blocks == CLIP and layer.startswith(CLIP_OUTSIDE) and self.width in shape
        number = layer.removeprefix(self.blocks).partition(".")[0]
        return number.isdecimal() and int(number) < self.depth and self.width in shape


CLIP_L: Final = Encoder(CLIP, 768, 12)
CLIP_H: Final = Encoder(CLIP, 1024, 24)
CLIP_G: Final = Encoder(CLIP, 1280, 32)
MINI_CLIP: Final = Encoder(CLIP, 128, 12)
T5_XXL: Final = Encoder("encoder.block.", 4096, 24)
LLAMA_8B: Final = Encoder(LANGUAGE_MODEL, 4096, 32)
GEMMA_2B: Final = Encoder(LANGUAGE_MODEL, 2304, 26)
TEXT_ENCODERS: Final[dict[str, tuple[Encoder | None, ...]]] = {  # the first, the second ...; None if there is none
    "sd1": (CLIP_L,),
    "sd2": (CLIP_H,),
    "sdxl": (CLIP_L, CLIP_G),
    "sdxl-refiner": (None, CLIP_G),
    "mini-a": (MINI_CLIP,),
    "mini-b": (MINI_CLIP,),
    "flux1": (CLIP_L, T5_XXL),
    "sd3": (CLIP_L, CLIP_G, T5_XXL),
    "hidream": (CLIP_L, CLIP_G, T5_XXL, LLAMA_8B),
    "hunyuan-video": (LLAMA_8B, CLIP_L),
    "qwen-image": (Encoder(LANGUAGE_MODEL, 3584, 28),),  # Qwen2.5-VL 7B
    "z-image": (Encoder(LANGUAGE_MODEL, 2560, 36),),  # Qwen3 4B
    "anima": (Encoder(LANGUAGE_MODEL, 1024, 28),),  # Qwen3 0.6B
    "lumina2": (GEMMA_2B,),
    "sana": (GEMMA_2B,),
}
ALONE: Final = frozenset(name for name, encoders in TEXT_ENCODERS.items() if len(encoders) == 1)


def find_encoder_families(layers: Mapping[str, Shape], modules: Iterable[str]) -> list[str]:
    """Find the families that fit a LoRA of text encoders alone.

    Args:
        layers: shape (out, in) by name in diffusers.
        modules: the names of their modules in the file.
    """
    if not layers:
        return []
    # kohya writes lora_te_ for the only text encoder, lora_te1_ for the first of two
    single = {module.startswith("lora_te_") for module in modules if module.startswith(("lora_te_", "lora_te1_"))}
    fitting = [name for name in TEXT_ENCODERS if encoders_fit(name, layers)]
    return [name for name in fitting if not single or (name in ALONE) in single]


def encoders_fit(family: str, layers: Mapping[str, Shape]) -> bool:
    """Whether the text encoders of a family have all these layers."""
    return all(encoder_has_layer(TEXT_ENCODERS[family], *item) for item in layers.items())


def encoder_has_layer(encoders: tuple[Encoder | None, ...], layer: str, shape: Shape) -> bool:
    """Whether the text encoder that a layer names has it in the shape (out, in)."""
    component, _, inner = layer.partition(".")
    number = 0 if component == "text_encoder" else int(component[-1]) - 1
    encoder = encoders[number] if number < len(encoders) else None
    return encoder is not None and encoder.has_layer(inner, shape)
