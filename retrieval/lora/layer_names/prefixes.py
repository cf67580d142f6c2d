"""What trainers put before the path of a module, which says the component of the pipeline that it belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from loradex.retrieval.lora.layer_names.rules import CACHED_NAMES

SECOND_TRANSFORMER: Final = "transformer_2."  # Wan 2.2's expert for little noise; that for much noise has no prefix
SECOND_TRANSFORMER_PREFIXES: Final = (SECOND_TRANSFORMER, "lora_transformer_2_")
DIFFUSION_PREFIXES: Final = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "conditional_transformer.",
    "lora_unet_",
    *SECOND_TRANSFORMER_PREFIXES,
    "lora_transformer_",
    "lora_prior_unet_",
    "lycoris_",
    "unet.",
    "unet_",
    "transformer.",
    "transformer_1.",  # beside transformer_2
)
# the prefix "transformer_" is taken off before these alone, as paths themselves begin with "transformer_blocks_"
TRANSFORMER_PATHS: Final = tuple(f"transformer_{kind}transformer_blocks_" for kind in ("", "single_", "joint_"))
ENCODER_PREFIXES: Final = {  # with the number of the text encoder
    "text_encoder.": 1,
    "text_encoder_": 1,
    "lora_te_": 1,
    **{
        f"{prefix}{number}{end}": number
        for prefix, end in (("text_encoder_", "."), ("text_encoder_", "_"))
        for number in (2, 3, 4)
    },
    **{f"lora_te{number}_": number for number in (1, 2, 3, 4)},
    "clip_l.": 1,
    "clip_g.": 2,
    "t5.": 3,
    "llama.": 1,
    "text_encoders.clip_l.transformer.": 1,
    "text_encoders.clip_g.transformer.": 2,
    "text_encoders.t5xxl.transformer.": 3,
}
PREFIXES: Final = tuple(sorted((*ENCODER_PREFIXES, *DIFFUSION_PREFIXES), key=len, reverse=True))
CLIP_PATHS: Final = ("text_model.", "text_model_encoder_")
T5_PATH: Final = "encoder.block."
LANGUAGE_MODEL_PATH: Final = "layers."
# the number that an encoder of a kind has in the pipelines of these architectures, whatever the file says
ENCODER_NUMBERS: Final = {
    "flux1": {T5_PATH: 2},
    "chroma": {T5_PATH: 2},
    "pixart": {T5_PATH: 1},
    "hidream": {LANGUAGE_MODEL_PATH: 4},
    "hunyuan-video": {LANGUAGE_MODEL_PATH: 1, CLIP_PATHS[0]: 2},
}
MAX_PREFIXES: Final = 6


@dataclass(frozen=True, slots=True)
class ModulePath:
    """The path of a module, without the prefixes of trainers.

    Attributes:
        path: with dots or underscores, as in the file.
        encoder: the number of the text encoder that the module belongs to; 0 for the diffusion model.
        is_second: whether it belongs to the pipeline's second transformer.
    """

    path: str
    encoder: int
    is_second: bool = False

    def name_in_pipeline(self, layer: str, architectures: Sequence[str]) -> str:
        """The name of its layer in a pipeline of diffusers of the first of ``architectures``."""
        if not self.encoder:
            return SECOND_TRANSFORMER + layer if self.is_second else layer
        numbers = ENCODER_NUMBERS.get(architectures[0], {}) if architectures else {}
        number = next((number for beginning, number in numbers.items() if layer.startswith(beginning)), self.encoder)
        return f"text_encoder.{layer}" if number == 1 else f"text_encoder_{number}.{layer}"


@lru_cache(CACHED_NAMES)
def strip_prefixes(module: str) -> ModulePath:
    """Take off what trainers put before the path of a module."""
    path, encoder, is_second = module.replace(".processor.", "."), 0, False
    for _ in range(MAX_PREFIXES):
        if path.startswith(CLIP_PATHS):
            return ModulePath(path, encoder or 1)
        prefix = next((prefix for prefix in PREFIXES if path.startswith(prefix)), None)
        if prefix is None:
            break
        encoder = ENCODER_PREFIXES.get(prefix, encoder)
        is_second = is_second or prefix in SECOND_TRANSFORMER_PREFIXES
        path = path.removeprefix(prefix).lstrip("_")
    path = path.removeprefix("transformer_") if path.startswith(TRANSFORMER_PATHS) else path
    return ModulePath(path, encoder, is_second)
