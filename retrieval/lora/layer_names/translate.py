"""Translation of a file's names of modules into diffusers' names of layers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from loradex.retrieval.lora.layer_names.auraflow import AURAFLOW
from loradex.retrieval.lora.layer_names.diffusion_transformers import (
    ANIMA,
    HIDREAM,
    KREA2,
    LUMINA2,
    QWEN,
    SD3,
    WAN,
    Z_IMAGE,
)
from loradex.retrieval.lora.layer_names.flux import CHROMA, FLUX1, FLUX2
from loradex.retrieval.lora.layer_names.hunyuan import HUNYUAN_IMAGE, HUNYUAN_VIDEO, HUNYUAN_VIDEO_15
from loradex.retrieval.lora.layer_names.ltx import LTX, LTX2
from loradex.retrieval.lora.layer_names.pixart import PIXART, SANA
from loradex.retrieval.lora.layer_names.prefixes import strip_prefixes
from loradex.retrieval.lora.layer_names.rules import (
    Architecture,
    RowRanges,
    SplitPath,
    all_rows,
    split_path,
)
from loradex.retrieval.lora.layer_names.sizes import SIZES, LayerSet, Shape
from loradex.retrieval.lora.layer_names.text_encoders import TEXT_ENCODERS
from loradex.retrieval.lora.layer_names.unet import UNET
from loradex.retrieval.lora.layer_names.video_transformers import COGVIDEOX, MOCHI

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
    LTX2,
    HUNYUAN_VIDEO_15,
    HUNYUAN_IMAGE,
    PIXART,
    SANA,
    COGVIDEOX,
    MOCHI,
    AURAFLOW,
)
Translation = dict[str, list[tuple[str, RowRanges]]]  # by module, its layers (name, rows)
CACHED_FILES: Final = 4  # the files of a folder often have the same modules


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
    candidates = best_architectures(
        {module: split_paths[module] for module, path in paths.items() if not path.encoder}, shapes
    )
    names = TranslatedNames([architecture.name for architecture, _ in candidates])
    translation = candidates[0][1] if candidates else {}
    for module, path in paths.items():
        of_encoder = TEXT_ENCODERS.translate(split_paths[module], shapes[module]) if path.encoder else []
        layers = of_encoder or translation.get(module, [])
        if not layers:
            layers = [(path.path, rows) for rows in all_rows(*shapes[module])]
            names.untranslated.append(module)
        names.layers[module] = [(path.name_in_pipeline(layer, names.architectures), rows) for layer, rows in layers]
    return names


def best_architectures(
    paths: Mapping[str, SplitPath], shapes: Mapping[str, Shape]
) -> list[tuple[Architecture, Translation]]:
    """The architectures that translate the most modules, with what they make of them; those first whose sizes fit best.

    Args:
        paths: by module, without those of text encoders.
        shapes: (out, in) by module.
    """
    patterns = Counter(pattern for pattern, _ in paths.values())
    bounds = {
        architecture.name: sum(patterns[pattern] for pattern in patterns if pattern in architecture.rules_by_pattern)
        for architecture in ARCHITECTURES
    }
    most, candidates = 1, list[tuple[Architecture, Translation]]()
    for architecture in sorted(ARCHITECTURES, key=lambda each: -bounds[each.name]):
        if bounds[architecture.name] < most:
            break
        rules = architecture.rules_by_pattern
        translation = {
            module: layers
            for module, path in paths.items()
            if path[0] in rules and (layers := architecture.translate(path, shapes[module]))
        }
        if len(translation) > most:
            most, candidates = len(translation), []
        if len(translation) == most:
            candidates.append((architecture, translation))
    if len(candidates) > 1:
        ranks = {each.name: rank_of(each, translation, shapes) for each, translation in candidates}
        candidates.sort(key=lambda candidate: ARCHITECTURES.index(candidate[0]))
        candidates.sort(key=lambda candidate: ranks[candidate[0].name], reverse=True)
    return candidates


def rank_of(architecture: Architecture, translation: Translation, shapes: Mapping[str, Shape]) -> tuple[bool, int]:
    """Whether a size of the architecture has all these layers, and how many kinds of blocks end where they do."""
    found = LayerSet.of(
        (layer, (sum(end - start for start, end in rows), shapes[module][1]))
        for module, layers in translation.items()
        for layer, rows in layers
    )
    fitting = [size for size in SIZES.get(architecture.name, ()) if size.has_layers(found)]
    return bool(fitting), max((size.count_full_kinds(found) for size in fitting), default=0)
