"""What the text encoders of each family are, and which of their states its U-Net attends to.

A checkpoint in one file holds no configuration. These facts are those of the configurations that belong to it: CompVis'
``v1-inference.yaml``, Stability AI's ``v2-inference.yaml``, ``sd_xl_base.yaml`` and ``sd_xl_refiner.yaml``, and
diffusers' folders made from them. All sizes come from the shapes of tensors.
"""

from dataclasses import dataclass
from typing import Final

from loradex.retrieval.text_states.tokens import END_ID

FULL_LENGTH: Final = 77  # positions of CLIP


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """One text encoder of a family: a CLIP text model (Radford et al. 2021, section 2.4).

    Attributes:
        component: its name in diffusers.
        activation: ``quick_gelu`` (OpenAI's CLIPs) or ``gelu`` (OpenCLIP's), where no configuration says it.
        pad: the token behind the end of a text.
        special: the token that its tokenizer takes for padding: if 0, an exclamation mark in a text is the token 0.
        unused_layers: at the end, of which the U-Net sees nothing, in transformers' layout and in open_clip's.
        normed: whether the U-Net gets the states after the final norm.
        head_width: numbers of an attention head, where no configuration says it.
    """

    component: str
    activation: str
    pad: int
    special: int
    unused_layers: tuple[int, int] = (0, 0)
    normed: bool = True
    head_width: int = 64


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """The text encoders of a family, whose states stand side by side.

    Attributes:
        length: positions that the U-Net attends to.
        context: positions to which a text is cut before its end; those beyond ``length`` are cut afterwards.
    """

    encoders: tuple[EncoderFacts, ...]
    length: int = FULL_LENGTH
    context: int = FULL_LENGTH


CLIP_L: Final = EncoderFacts("text_encoder", "quick_gelu", END_ID, END_ID)
# Its last layer is in checkpoints in one file, and was left out of diffusers' folders.
OPEN_CLIP_H: Final = EncoderFacts("text_encoder", "gelu", 0, 0, unused_layers=(0, 1))
CLIP_L_PENULTIMATE: Final = EncoderFacts("text_encoder", "quick_gelu", END_ID, END_ID, (1, 1), normed=False)
OPEN_CLIP_G: Final = EncoderFacts("text_encoder_2", "gelu", 0, 0, (1, 1), normed=False)
MINIATURE: Final = FamilyFacts((EncoderFacts("text_encoder", "gelu", 0, END_ID, head_width=32),), length=16, context=32)

FAMILIES: Final = {
    "sd1": FamilyFacts((CLIP_L,)),
    "sd2": FamilyFacts((OPEN_CLIP_H,)),
    "sdxl": FamilyFacts((CLIP_L_PENULTIMATE, OPEN_CLIP_G)),
    "sdxl-refiner": FamilyFacts((OPEN_CLIP_G,)),
    "mini-a": MINIATURE,
    "mini-b": MINIATURE,
}
OTHER_STATES: Final = {  # what models of further families attend to, which is not read
    "sd3": "CLIP's and T5's states side by side with its pictures",
    "flux1": "T5's states",
    "flux2": "a language model's states",
    "chroma": "T5's states",
    "pixart": "T5's states",
    "wan": "UMT5's states",
    "hunyuan-video": "a language model's states",
    "lumina2": "a language model's states",
    "qwen-image": "a language model's states",
    "z-image": "a language model's states",
    "anima": "a language model's states",
}
