"""Translation of a file's names of modules into diffusers' names of layers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from loradex.retrieval.lora.layer_names.diffusion_transformers import (
    ANIMA,
    HIDREAM,
    KREA2,
    LTX,
    LUMINA2,
    QWEN,
    SD3,
    WAN,
    Z_IMAGE,
)
from loradex.retrieval.lora.layer_names.flux import CHROMA, FLUX1, FLUX2, HUNYUAN_VIDEO
from loradex.retrieval.lora.layer_names.rules import (
    CACHED_NAMES,
    Architecture,
    RowRanges,
    SplitPath,
    all_rows,
    split_path,
)
from loradex.retrieval.lora.layer_names.text_encoders import TEXT_ENCODERS
from loradex.retrieval.lora.layer_names.unet import UNET

ARCHITECTURES: Final = (
    UNET,
    FLUX1,
    CHROMA,
    FLUX2,
    HUNYUAN_VIDEO,
    SD3,
    QWEN,
    WAN,
    Z_IMAGE,
    LUMINA2,
    LTX,
    ANIMA,
    KREA2,
    HIDREAM,
)
DIFFUSION_PREFIXES: Final = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "conditional_transformer.",
    "lora_unet_",
    "lora_transformer_",
    "lora_prior_unet_",
    "lycoris_",
    "unet.",
    "unet_",
    "transformer.",
)
# the prefix "transformer_" is taken off before these alone, as paths themselves begin with "transformer_blocks_"
TRANSFORMER_PATHS: Final = ("transformer_transformer_blocks_", "transformer_single_transformer_blocks_")
ENCODER_PREFIXES: Final = {  # with the number of the text encoder
    "text_encoder.": 1,
    "text_encoder_2.": 2,
    "text_encoder_3.": 3,
    "text_encoder_2_": 2,
    "text_encoder_3_": 3,
    "text_encoder_": 1,
    "lora_te_": 1,
    "lora_te1_": 1,
    "lora_te2_": 2,
    "lora_te3_": 3,
    "clip_l.": 1,
    "clip_g.": 2,
    "t5.": 3,
    "text_encoders.clip_l.transformer.": 1,
    "text_encoders.clip_g.transformer.": 2,
    "text_encoders.t5xxl.transformer.": 3,
}
CLIP_PATHS: Final = ("text_model.", "text_model_encoder_")
T5_PATH: Final = "encoder.block."
MAX_PREFIXES: Final = 6
CACHED_FILES: Final = 4  # the files of a folder often have the same modules


@dataclass(frozen=True, slots=True)
class ModulePath:
    """The path of a module, without the prefixes of trainers.

    Attributes:
        path: with dots or underscores, as in the file.
        encoder: the number of the text encoder that the module belongs to; 0 for the diffusion model.
    """

    path: str
    encoder: int


@dataclass(frozen=True, slots=True)
class TranslatedNames:
    """The names of a file's modules, translated into layers.

    Attributes:
        architectures: those whose names fit best, the likeliest first; empty for text encoders alone.
        layers: by module, its layers (name, rows).
        untranslated: modules whose names fit no rule; their layers keep the names.
    """

    architectures: list[str] = field(default_factory=list)
    layers: dict[str, list[tuple[str, RowRanges]]] = field(default_factory=dict)
    untranslated: list[str] = field(default_factory=list)


def translate_names(shapes: Mapping[str, tuple[int, int]]) -> TranslatedNames:
    """Translate the names of modules, given with their shapes (out, in); the last results are cached."""
    return translate_modules(tuple(shapes.items()))


@lru_cache(CACHED_FILES)
def translate_modules(modules: tuple[tuple[str, tuple[int, int]], ...]) -> TranslatedNames:
    """Translate the names of modules, given as (name, shape)."""
    shapes = dict(modules)
    paths = {module: strip_prefixes(module) for module in shapes}
    split_paths = {module: split_path(path.path) for module, path in paths.items()}
    architectures = best_architectures(
        {module: split_paths[module] for module, path in paths.items() if not path.encoder}, shapes
    )
    names = TranslatedNames([architecture.name for architecture in architectures])
    for module, path in paths.items():
        architecture = TEXT_ENCODERS if path.encoder else architectures[0] if architectures else None
        layers = architecture.translate(split_paths[module], shapes[module]) if architecture else []
        if not layers:
            layers = [(path.path, rows) for rows in all_rows(*shapes[module])]
            names.untranslated.append(module)
        names.layers[module] = [(pipeline_name(path, layer, names.architectures), rows) for layer, rows in layers]
    return names


@lru_cache(CACHED_NAMES)
def strip_prefixes(module: str) -> ModulePath:
    """Take off what trainers put before the path of a module."""
    path, encoder = module.replace(".processor.", "."), 0
    for _ in range(MAX_PREFIXES):
        if path.startswith(CLIP_PATHS):
            return ModulePath(path, encoder or 1)
        prefix = next((p for p in (*ENCODER_PREFIXES, *DIFFUSION_PREFIXES) if path.startswith(p)), None)
        if prefix is None:
            break
        encoder = ENCODER_PREFIXES.get(prefix, encoder)
        path = path.removeprefix(prefix).lstrip("_")
    return ModulePath(path.removeprefix("transformer_") if path.startswith(TRANSFORMER_PATHS) else path, encoder)


def pipeline_name(path: ModulePath, layer: str, architectures: list[str]) -> str:
    """The layer's name in a pipeline of diffusers, where Flux has T5 as its second text encoder."""
    if not path.encoder:
        return layer
    is_flux_t5 = layer.startswith(T5_PATH) and architectures[:1] in (["flux1"], ["chroma"])
    number = 2 if is_flux_t5 else path.encoder
    return f"text_encoder.{layer}" if number == 1 else f"text_encoder_{number}.{layer}"


def best_architectures(paths: Mapping[str, SplitPath], shapes: Mapping[str, tuple[int, int]]) -> list[Architecture]:
    """The architectures that translate the most modules; among those, the ones whose widths and blocks fit best.

    Args:
        paths: by module, without those of text encoders.
        shapes: (out, in) by module.
    """
    scores = {}
    for architecture in ARCHITECTURES:
        translated = {}
        for module, path in paths.items():
            if path[0] in architecture.rules_by_pattern and (layers := architecture.translate(path, shapes[module])):
                translated[module] = layers[0][0]
        within = sum(is_within(architecture, layer, shapes[module]) for module, layer in translated.items())
        scores[architecture.name] = (len(translated), within, count_full_kinds(architecture, translated.values()))
    best = max(scores.values())
    return [architecture for architecture in ARCHITECTURES if scores[architecture.name] == best] if best[0] else []


def is_within(architecture: Architecture, layer: str, shape: tuple[int, int]) -> bool:
    """Whether the architecture has that many blocks, of that width."""
    kind, number = block_of(layer)
    has_block = number < architecture.blocks.get(kind, number + 1)
    return has_block and (not architecture.widths or not architecture.widths.isdisjoint(shape))


def count_full_kinds(architecture: Architecture, layers: Iterable[str]) -> int:
    """Count the kinds of blocks whose last block among the layers is the architecture's last."""
    last: dict[str, int] = {}
    for kind, number in map(block_of, layers):
        last[kind] = max(number, last.get(kind, -1))
    return sum(last.get(kind) == count - 1 for kind, count in architecture.blocks.items())


def block_of(layer: str) -> tuple[str, int]:
    """The kind and the number of the block that a layer is in; -1 if it is in none."""
    kind, _, rest = layer.partition(".")
    number = rest.partition(".")[0]
    return kind, int(number) if number.isdecimal() else -1
